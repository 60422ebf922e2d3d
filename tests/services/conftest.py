"""Tests against real services on loopback, which `make test-services` installs; `make test` leaves them out."""
