"""The run files that come with the package: ``pkg:glue_mrpc`` names one wherever a run file is asked for.

They are the folder ``configs`` of the repository; a wheel carries it as ``glora/configs``.
"""

from __future__ import annotations

from pathlib import Path

PREFIX = "pkg:"
_PACKAGE = Path(__file__).parents[1]


def folder() -> Path:
    """Where they lie: in the installed package, or beside it in a checkout.

    Raises:
        ValueError: neither is there.
    """
    for place in (_PACKAGE / "configs", _PACKAGE.parent / "configs"):
        if place.is_dir():
            return place
    raise ValueError("this installation of glora carries no run files; give the path of a file instead of pkg:NAME")


def shipped() -> dict[str, str]:
    """Name of each run file and what it is, the first sentence of its opening comment."""
    found = {}
    for path in sorted(folder().glob("*.toml")):
        lines = path.read_text(encoding="utf-8").splitlines()
        comment = []
        for line in lines:
            if not line.startswith("#"):
                break
            comment.append(line.lstrip("# "))
        found[path.stem] = " ".join(comment).split(". ")[0].rstrip(".")
    return found


def resolve(path: str | Path) -> Path:
    """The path itself, or the run file or folder that ``pkg:NAME`` names.

    Raises:
        ValueError: no file that comes with the package has this name.
    """
    if not str(path).startswith(PREFIX):
        return Path(path)
    name = str(path).removeprefix(PREFIX)
    for place in (folder() / f"{name}.toml", folder() / name):
        if name and place.exists() and place.parent == folder():
            return place
    raise ValueError(f"no run file {name!r} comes with glora; there are {', '.join(shipped())}")
