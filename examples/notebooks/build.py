"""Make the notebooks of this folder: read their sources, run them, keep what came out without a trace of this machine.

python examples/notebooks/build.py                 both, in place (make notebooks)
python examples/notebooks/build.py cnn -o FOLDER   one of them, into FOLDER
"""

from __future__ import annotations

import argparse
import os
import re
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from traitlets.config import Config

HERE = Path(__file__).parent
NAMES = ("cnn", "graph")
TIMEOUT_S = 600
_CELL = re.compile(r"^# %%(?P<said>.*)$", re.MULTILINE)


def read_source(path: Path) -> Any:
    """A notebook without outputs, of a file in the percent format: what stands before the first cell is about the
    file."""
    marks = list(_CELL.finditer(path.read_text(encoding="utf-8")))
    text = path.read_text(encoding="utf-8")
    notebook = nbformat.v4.new_notebook()
    for number, mark in enumerate(marks):
        stop = marks[number + 1].start() if number + 1 < len(marks) else len(text)
        inside = text[mark.end() : stop].strip("\n")
        if "[markdown]" in mark["said"]:
            cell = nbformat.v4.new_markdown_cell(re.sub(r"^# ?", "", inside, flags=re.MULTILINE))
        else:
            cell = nbformat.v4.new_code_cell(inside)
            cell.metadata["tags"] = ["varies"] if "varies" in mark["said"] else []
        cell.id = f"cell-{number}"
        notebook.cells.append(cell)
    notebook.metadata["kernelspec"] = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return notebook


def run(notebook: Any) -> Any:
    """Execute every cell in a folder of its own; CellExecutionError where one fails."""
    with tempfile.TemporaryDirectory() as folder:
        for variable in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "FGTRAC_CACHE"):
            os.environ[variable] = str(Path(folder) / variable.lower())
        os.environ["PYTHONWARNINGS"] = "ignore:IProgress not found"  # tqdm's, where there are no widgets
        no_ports = Config(KernelManager={"transport": "ipc", "ip": str(Path(folder) / "kernel")})
        where = {"metadata": {"path": folder}}
        NotebookClient(notebook, config=no_ports, timeout=TIMEOUT_S, resources=where).execute()
    return strip(notebook)


def strip(notebook: Any) -> Any:
    """Without times, versions, Python's words beside HTML, and what fgtrac says of how long things take."""
    notebook.metadata.pop("language_info", None)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type != "code":
            continue
        cell.outputs = [out for out in cell.outputs if not _is_progress(out)]
        for output in cell.outputs:
            if "text/html" in output.get("data", {}):
                output.data.pop("text/plain", None)  # Python's own words for the value, with memory addresses
    return notebook


def _is_progress(output: Any) -> bool:
    is_told = output.output_type == "stream" and output.name == "stderr"
    return is_told and all(line.startswith("fgtrac: ") for line in output.text.splitlines())


def main() -> None:
    """Read the command line, and write the notebooks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help=f"of {', '.join(NAMES)} (default: all)")
    parser.add_argument("-o", "--out", type=Path, default=HERE)
    asked = parser.parse_args()
    for name in asked.names or NAMES:
        nbformat.write(run(read_source(HERE / f"{name}.py")), asked.out / f"{name}.ipynb")


if __name__ == "__main__":
    main()
