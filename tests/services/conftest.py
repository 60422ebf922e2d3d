"""Tests against real services on loopback, which `make test-services` installs and runs; `make test` leaves them out."""
