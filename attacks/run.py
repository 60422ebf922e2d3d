"""Tell lies about copies of a sealed trace and see which check catches each: python attacks/run.py TRACE [NAME ...]"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from fgtrac.commit.signer import default_key_path, load_key
from fgtrac.demo.forge import NothingToForgeError
from fgtrac.demo.lies import LIES, answer, is_as_foretold
from fgtrac.store.trace_dir import TraceDir
from fgtrac.verify.report import Verdict


def main(arguments: list[str]) -> int:
    """0 where every lie met the check that is named for it, 1 otherwise, 2 for arguments that make no sense."""
    if not arguments:
        print(f"{__doc__}\n\nLies: {', '.join(lie.name for lie in LIES)}")
        return 2
    trace, names = TraceDir.open(Path(arguments[0])), arguments[1:]
    if unknown := set(names) - {lie.name for lie in LIES}:
        print(f"no lie is called {', '.join(sorted(unknown))}; there are {', '.join(lie.name for lie in LIES)}")
        return 2
    key = load_key(default_key_path(os.environ))
    surprises = 0
    for lie in LIES:
        if names and lie.name not in names:
            continue
        try:
            report = answer(trace, lie, key)
        except NothingToForgeError as error:
            print(f"{'left out':12} {lie.name}: {error}")
            continue
        expected = is_as_foretold(lie, report)
        surprises += not expected
        print(f"{'as foretold' if expected else 'SURPRISE':12} {lie.name}: {lie.words}")
        for finding in report.findings:
            if finding.verdict is Verdict.REFUTED:
                print(f"{'':12} refuted by {finding.check}: {finding.words}")
    return 1 if surprises else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
