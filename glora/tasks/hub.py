"""What is taken from the Hugging Face hub: no code, and of which version."""

from __future__ import annotations

import os
import re
from typing import Any

_REVISION = re.compile(r"[\w.][\w./-]{0,249}")


def check_revision(name: str, revision: str | None, where: str | None) -> None:
    """Raise ValueError unless a version can be asked for.

    Args:
        name: of the setting, for the message.
        revision: commit, tag or branch of a repository of the hub; None takes its newest.
        where: what it is a version of, a name on the hub; None or a folder has none.
    """
    if revision is None:
        return
    if not _REVISION.fullmatch(revision):
        raise ValueError(f"{name} must be a commit, tag or branch of a repository of the hub, got {revision!r}")
    if where is None or os.path.isdir(where) or ":" in where:
        raise ValueError(f"{name}={revision!r} is a version on the hub, but {where!r} is not there; leave it out")


def from_hub(revision: str | None = None) -> dict[str, Any]:
    """What every ``from_pretrained`` is told: to run no code of a repository, and which version to take."""
    return {"trust_remote_code": False, **({} if revision is None else {"revision": revision})}


def commit(model: Any) -> str | None:
    """The commit of the hub that a model was loaded from, as transformers notes it; None for a folder."""
    for part in (model, getattr(model, "backbone", None), getattr(model, "encoder", None)):
        found = getattr(getattr(part, "config", None), "_commit_hash", None)
        if isinstance(found, str):
            return found
    return None
