"""A setting from a file: arrays as .npy beside it, covariances, several sources, a loss."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from rmt import _checks
from rmt._files import read_text
from rmt.cli.fit import _load
from rmt.settings.gaussian import GaussianTransfer, RidgeSource
from rmt.settings.isotropic import FixedSource, Transfer, from_dict

#: Keys of a setting in coordinates, and of its two kinds of source.
_KEYS = ("n", "gamma", "label_noise", "mean", "covariance", "source")
_RIDGE = ("mean", "covariance", "N", "gamma", "label_noise")

HELP = """setting files (--setting FILE.toml; flags win over the file):
  loss = "logistic"                 # optional
  [setting]                         # with a mean: explicit coordinates; without: the fields of the flags
  n = 200
  gamma = 0.3
  mean = "mean.npy"                 # (p,), a path beside the file, or a list
  covariance = "C.npy"              # (p, p) or (p,), or a list; identity if left out
  [[setting.source]]                # one, or several (then --alpha takes one scale for all of them)
  vector = "w.npy"                  # weights; or mean, covariance, N, gamma of a ridge source
"""


def read_setting(path: str, given: dict[str, Any]) -> tuple[Transfer | GaussianTransfer, str]:
    """The setting of a file, with the fields ``given`` on the command line put over it, and the file's loss.

    Raises:
        ValueError: a missing or broken file, or a key that is unknown or missing, named.
    """
    try:
        content = tomllib.loads(read_text(path))
    except FileNotFoundError:
        raise ValueError(f"--setting {path!r} does not exist; check the path") from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ValueError(f"--setting {path!r} is not valid TOML: {error}") from None
    unknown = sorted(set(content) - {"setting", "loss"})
    if unknown or not isinstance(content.get("setting"), dict):
        raise ValueError(
            f"--setting {path!r} takes a table [setting] and a loss, got {', '.join(content) or 'nothing'}"
        )
    loss, values = content.get("loss", "square"), content["setting"] | given
    if not isinstance(loss, str):
        raise ValueError(f"--setting {path!r}: loss must be a text, got {loss!r}")
    if "mean" not in values:
        return from_dict(values), loss
    folder = Path(path).parent
    _known("setting", values, _KEYS, ("n", "gamma", "mean", "source"))
    mean = _array("mean", values["mean"], folder)
    tables = values["source"]
    sources = [_source(one, folder, mean.size) for one in (tables if isinstance(tables, list) else [tables])]
    return GaussianTransfer(
        n=values["n"],
        gamma=values["gamma"],
        label_noise=values.get("label_noise", 0.0),
        mean=mean,
        covariance=_covariance(values, folder, mean.size),
        source=sources[0] if len(sources) == 1 else tuple(sources),
    ), loss


def _source(values: Any, folder: Path, p: int) -> FixedSource | RidgeSource:
    if not isinstance(values, dict):
        raise ValueError(f"setting.source must be a table or several of them, got {values!r}")
    if "vector" in values:
        _known("source", values, ("vector",), ())
        return FixedSource(vector=_array("vector", values["vector"], folder))
    _known("source", values, _RIDGE, ("mean", "N", "gamma"))
    return RidgeSource(
        mean=_array("mean of the source", values["mean"], folder),
        covariance=_covariance(values, folder, p),
        N=float(values["N"]),
        gamma=values["gamma"],
        label_noise=values.get("label_noise", 0.0),
    )


def _known(name: str, values: dict[str, Any], known: tuple[str, ...], needed: tuple[str, ...]) -> None:
    unknown, missing = sorted(set(values) - set(known)), [key for key in needed if key not in values]
    if unknown or missing:
        word, keys = ("unknown", unknown) if unknown else ("missing", missing)
        raise ValueError(f"{word} key(s) {', '.join(keys)} of {name} in coordinates; known: {', '.join(known)}")


def _array(name: str, value: Any, folder: Path) -> Any:
    return _load(name, str(folder / value)) if isinstance(value, str) else _checks.finite(name, value)


def _covariance(values: dict[str, Any], folder: Path, p: int) -> Any:
    value = values.get("covariance")
    return [1.0] * p if value is None else _array("covariance", value, folder)
