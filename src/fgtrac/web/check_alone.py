"""The check of one trace in a process of its own: `python -P -m fgtrac.web.check_alone PATH [KEY]`.

Two threads of Python that compute take turns, so that a large trace that is checked would keep every page waiting. What
is said to whoever started it are lines of JSON: [done, total] again and again, and at last the report.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fgtrac.verify.report import Finding, Report, Verdict


class Alone:
    """A process that checks a trace; `stop` ends it at once."""

    def __init__(self, path: Path, key: str | None) -> None:
        # -P: what lies in the current folder, which a stranger may have filled, is not imported. A session of its own:
        # Ctrl-C reaches the explorer alone, which ends this process
        command = [sys.executable, "-P", "-m", "fgtrac.web.check_alone", str(path.absolute()), *([key] if key else [])]
        self._process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True, start_new_session=True
        )

    def report(self, progress: Callable[[int, int], None]) -> Report | None:
        """What it found, None where it ended without an answer."""
        with self._process as process:
            assert process.stdout is not None
            for line in process.stdout:
                said = json.loads(line)
                if isinstance(said, list):
                    progress(*said)
                else:
                    return _read(said)
        return None

    def stop(self) -> None:
        """End it."""
        self._process.kill()


def _read(said: dict[str, Any]) -> Report:
    findings = [Finding(f["check"], Verdict(f["verdict"]), f["words"]) for f in said["findings"]]
    return Report(tuple(findings), tuple(said["notes"]))


def main(path: str, key: str | None = None) -> None:
    """Check, and say so."""
    from fgtrac.web.checking import report_on

    def say(said: Any) -> None:
        print(json.dumps(said), flush=True)

    say(report_on(Path(path), key, lambda done, total: say([done, total])).as_json())


if __name__ == "__main__":
    main(*sys.argv[1:])
