"""Execute the notebooks' text sources.

    python notebooks/build.py            write NAME.ipynb beside each NAME.py, executed
    python notebooks/build.py --fast     execute with small sizes (NOTEBOOK_FAST=1), write nothing
    python notebooks/build.py 01 --fast  only those whose name starts with 01

Exit code 1 when a notebook fails; the failing cell and its error are printed.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent


def execute(source: Path, *, fast: bool) -> None:
    """Run one text source in a fresh kernel; write the paired .ipynb unless ``fast``."""
    import jupytext
    import nbformat
    from nbclient import NotebookClient

    notebook = jupytext.read(source)
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    NotebookClient(notebook, timeout=1200, resources={"metadata": {"path": str(HERE.parent)}}).execute()
    if not fast:
        for cell in notebook.cells:  # times and kernel counters would change at every run
            cell.metadata.pop("execution", None)
        temporary = source.with_suffix(".ipynb.tmp")
        nbformat.write(notebook, temporary)
        temporary.replace(source.with_suffix(".ipynb"))


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="beginnings of names (default: all)")
    parser.add_argument("--fast", action="store_true", help="small sizes, write nothing")
    arguments = parser.parse_args(argv)
    sources = sorted(HERE.glob("[0-9]*.py"))
    if arguments.names:
        sources = [path for path in sources if path.name.startswith(tuple(arguments.names))]
        if not sources:
            parser.error(f"no notebook starts with {', '.join(arguments.names)}")
    os.environ["NOTEBOOK_FAST"] = "1" if arguments.fast else "0"
    failed = 0
    for source in sources:
        start = time.perf_counter()
        try:
            execute(source, fast=arguments.fast)
        except Exception as error:  # a kernel reports any error of a cell as its own exception type
            print(f"{source.name}: FAILED\n{error}", file=sys.stderr)
            failed += 1
        else:
            print(f"{source.name}: {time.perf_counter() - start:.0f} s", file=sys.stderr)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
