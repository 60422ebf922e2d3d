"""What the tests of this folder share: logs read back, as the capture tests read them."""

from capture.conftest import log, run

__all__ = ["log", "run"]
