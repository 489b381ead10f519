"""The ``rmt`` command: predict, simulate, sweep, fit."""

from __future__ import annotations

import argparse
import io
import sys
import tomllib
from pathlib import Path
from typing import Any

import numpy as np

from rmt import __version__, _checks
from rmt._files import read_text, to_json, to_plain, write_atomic
from rmt.cli import fit, setting_file
from rmt.cli.exits import CODES, Parser, run
from rmt.scores.score import QUANTITIES
from rmt.settings.isotropic import Transfer, from_dict
from rmt.sweep import MOST_POINTS

OPTIMA = ("alpha_star", "alpha_bar", "alpha_risk", "best_accuracy")

#: Flag, meaning. Fields of a Transfer, with dashes for underscores.
FIELDS = {
    "p": "dimension",
    "n": "target samples",
    "gamma": "ridge penalty of the target",
    "N": "source samples ('inf' for infinitely many)",
    "gamma-source": "ridge penalty of the source",
    "mu": "norm of the source mean",
    "mu-perp": "norm of the part of the target mean orthogonal to the source mean",
    "beta": "alignment of the target mean with the source mean",
    "mu-target": "norm of the target mean",
    "label-noise": "probability that a target label is flipped",
    "label-noise-source": "probability that a source label is flipped",
}

EXAMPLES = (
    """examples:
  rmt predict --p 400 --n 200 --N 5000 --mu 1.5 --mu-perp 1 --beta 0.8 --gamma 1 --gamma-source 1 --alpha 0,1,2
  rmt predict --p 200 --n 100 --gamma 0.3 --mu-target 1.5 --overlap 0.6 --norm2 0.45 --json
  rmt simulate --p 400 --n 200 --N 5000 --mu 1.5 --mu-perp 1 --beta 0.8 --gamma 1 --gamma-source 1 --draws 1000
  rmt sweep --p 400 --n 200 --N 5000 --mu 1.5 --mu-perp 1 --beta 0.8 --gamma 1 --gamma-source 1 \\
            --grid gamma=0.01,0.1,1,10 --grid beta=0:1:5 --out build/sweep
  rmt predict --setting setting.toml --loss logistic --alpha 0,1,2
  rmt fit --features X.npy --labels y.npy --source w.npy --json

A sweep that was interrupted keeps its finished points: run the same command again.

"""
    + setting_file.HELP
    + "\n"
    + CODES.format(result="a simulation disagrees with theory (|z| > 4)")
)


def build_parser() -> argparse.ArgumentParser:
    """The parser of the ``rmt`` command."""
    form = argparse.RawDescriptionHelpFormatter
    parser = Parser(
        prog="rmt",
        description="Theory and simulation of α-rescaled fine-tuning.",
        epilog=EXAMPLES,
        formatter_class=form,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"rmt {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    predict = commands.add_parser(
        "predict",
        help="moments, accuracy and optimal scales",
        epilog=EXAMPLES,
        formatter_class=form,
        allow_abbrev=False,
    )
    simulate = commands.add_parser(
        "simulate",
        help="the same, beside simulated estimates",
        description="Theory beside simulations at the given size and at twice it (same p/n, p/N): raw z at both, and "
        "z, which tests that the error halves as that of a limit must.",
        epilog=EXAMPLES,
        formatter_class=form,
        allow_abbrev=False,
    )
    sweep = commands.add_parser(
        "sweep",
        help="a grid of settings: table and plot",
        epilog=EXAMPLES,
        formatter_class=form,
        allow_abbrev=False,
    )
    for command in (predict, simulate, sweep):
        _add_setting(command)
        command.add_argument(
            "--alpha",
            type=_scales,
            action="extend",
            metavar="A[,B…]",
            help="scale, or several: 0,1,2 (--alpha=-1,2 before a minus); may be repeated (default 1)",
        )
        command.add_argument("--json", action="store_true", help="print JSON")
    for command in (predict, simulate):
        command.add_argument("--setting", metavar="FILE.toml", help="a setting with covariances, sources and a loss")
        command.add_argument("--loss", default=None, help="square (default), logistic or squared_hinge")
    for command in (simulate, sweep):
        command.add_argument("--draws", type=int, default=None, help="simulated draws (default 1000; sweep 200)")
        command.add_argument("--seed", type=int, default=None, help="same seed, same numbers (default 0)")
        command.add_argument("--method", default=None, help="exact (default) or direct")
        command.add_argument("--jobs", type=int, default=1, help="worker processes (default 1)")
        command.add_argument("--noise", default=None, help="noise law of the direct method (default gaussian)")
        command.add_argument("--device", default=None, help="run the direct method on torch: cpu, cuda, …")
    sweep.add_argument(
        "file",
        nargs="?",
        metavar="FILE.toml",
        help="keys draws, seed, method, alpha; tables [setting], [grid]",
    )
    sweep.add_argument("--grid", action="append", default=[], metavar="FIELD=A,B,C", help="values, or START:STOP:COUNT")
    sweep.add_argument("--out", default="build/sweep", help="folder of the sweep (default build/sweep)")
    sweep.add_argument("--format", default="csv", help="csv (default) or parquet")
    fit.add_parser(commands)
    return parser


def _scales(text: str) -> list[float]:
    """``0,1,2`` as numbers."""
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be numbers with commas between, got {text!r}") from None


def _alpha(given: list[float] | None, default: list[float]) -> list[float]:
    """The scales of a table: finite numbers (the limit of infinite ones is best_accuracy)."""
    return _checks.finite("alpha", default if given is None else given).tolist()


def _add_setting(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("setting")
    for flag, meaning in FIELDS.items():
        group.add_argument(f"--{flag}", type=float, default=None, help=meaning)
    group.add_argument("--overlap", type=float, default=None, help="fixed source: ⟨w̃, m⟩")
    group.add_argument("--norm2", type=float, default=None, help="fixed source: ‖w̃‖²")


def _given(arguments: argparse.Namespace) -> dict[str, Any]:
    """The setting fields that were given on the command line."""
    names = [flag.replace("-", "_") for flag in FIELDS]
    values = {name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}
    source = {name: getattr(arguments, name) for name in ("overlap", "norm2") if getattr(arguments, name) is not None}
    if source:
        if len(source) < 2:
            raise ValueError("a fixed source needs both --overlap and --norm2")
        values["source"] = source
    return values


def _setting(arguments: argparse.Namespace) -> tuple[Any, str]:
    """The setting and the loss of the flags and the file."""
    given, loss = _given(arguments), "square"
    if arguments.setting is None:
        setting: Any = from_dict(given)
    else:
        setting, loss = setting_file.read_setting(arguments.setting, given)
    return setting, arguments.loss or loss


def _scales_of(setting: Any, alpha: list[float]) -> Any:
    """(A,) scales, or (A, K), the same for each of K sources."""
    scales = np.asarray(alpha, dtype=float)
    return scales if setting.source_count is None else np.repeat(scales[:, None], setting.source_count, axis=1)


def predict(setting: Any, alpha: list[float], loss: str = "square") -> dict[str, Any]:
    """What ``rmt predict --json`` prints."""
    from rmt.predict import theory

    score = theory(setting, loss)
    scales = _scales_of(setting, alpha)
    answer: dict[str, Any] = {"alpha": alpha}
    answer |= {name: getattr(score, name)(scales) for name in QUANTITIES}
    optima = [name for name in OPTIMA if name != "alpha_bar" or setting.source_count is None]
    answer |= {name: getattr(score, name) for name in optima}
    if hasattr(score, "accuracy_source_only"):
        answer["accuracy_source_only"] = score.accuracy_source_only
    return to_plain(answer)


def simulate(
    setting: Any,
    alpha: list[float],
    draws: int,
    seed: int,
    method: str | None,
    options: dict[str, Any],
    loss: str = "square",
) -> dict[str, Any]:
    """What ``rmt simulate --json`` prints: quantities become {theory, value, stderr, raw_z, doubled_z, z}."""
    from rmt.sizes import agreement

    scales = _scales_of(setting, alpha)
    comparison = agreement(setting, scales, draws, seed, loss=loss, method=method, **options)
    answer = predict(setting, alpha, loss) | {
        "draws": draws,
        "seed": seed,
        "method": method,
        "worst_z": comparison.worst,
    }
    for name in comparison.quantities:
        estimate = comparison.simulated[name]
        answer[name] = {
            "theory": comparison.theory[name],
            "value": estimate.value,
            "stderr": estimate.stderr,
            "raw_z": comparison.raw_z[name],
            "doubled_z": (comparison.doubled_z or {})[name],
            "z": comparison.z[name],
        }
    return to_plain(answer)


def _method(arguments: argparse.Namespace, default: str = "exact") -> tuple[str, dict[str, Any]]:
    method = arguments.method or default
    _checks.one_of("--method", method, ("exact", "direct"))
    options: dict[str, Any] = {}
    if arguments.noise is not None:
        options["noise"] = arguments.noise
    if arguments.device is not None:
        options |= {"backend": "torch", "device": arguments.device}
    if options and method == "exact":
        raise ValueError("--noise and --device belong to the direct simulator; add --method direct")
    return method, options


def _run_predict(arguments: argparse.Namespace) -> int:
    alpha = _alpha(arguments.alpha, [1.0])
    setting, loss = _setting(arguments)
    answer = predict(setting, alpha, loss)
    for name in QUANTITIES:
        if not np.isfinite(np.asarray(answer[name], dtype=float)).all():
            raise ValueError(f"{name} is not finite at alpha={alpha}: numbers of such sizes overflow; rescale them")
    print(to_json(answer) if arguments.json else _table(answer, alpha))
    return 0


def _run_simulate(arguments: argparse.Namespace) -> int:
    from rmt.sizes import agreement

    method, options = _method(arguments)
    setting, loss = _setting(arguments)
    alpha = _alpha(arguments.alpha, [1.0])
    draws = _checks.whole("draws", 1000 if arguments.draws is None else arguments.draws)
    if draws < 2:
        raise ValueError("--draws 1 has no standard error to compare theory by; give at least 2")
    seed = 0 if arguments.seed is None else arguments.seed
    fast = isinstance(setting, Transfer) and loss == "square"
    if not fast and (options or arguments.method == "exact" or arguments.jobs != 1):
        raise ValueError("--method, --noise, --device and --jobs belong to settings of norms with the square loss")
    options = options | {"n_jobs": arguments.jobs} if fast else {}
    chosen = method if fast else None
    if arguments.json:
        answer = simulate(setting, alpha, draws, seed, chosen, options, loss)
        print(to_json(answer))
        return int(float(answer["worst_z"]) > 4)
    options |= {"progress": True} if fast else {}
    comparison = agreement(setting, _scales_of(setting, alpha), draws, seed, loss=loss, method=chosen, **options)
    print(comparison)
    return int(comparison.worst > 4)


def _table(answer: dict[str, Any], alpha: list[float]) -> str:
    lines = [f"{'alpha':>10}" + "".join(f"{name:>15}" for name in QUANTITIES)]
    for i, scale in enumerate(alpha):
        lines.append(f"{scale:>10g}" + "".join(f"{answer[name][i]:>15.6g}" for name in QUANTITIES))
    shown = [name for name in (*OPTIMA, "accuracy_source_only") if name in answer]
    form: Any = {"float": "{:.6g}".format}
    texts = [np.array2string(np.asarray(answer[name], dtype=float), formatter=form) for name in shown]
    lines += ["", *(f"{name:<22}{text:>12}" for name, text in zip(shown, texts, strict=True))]
    return "\n".join(lines)


def _axis(text: str) -> tuple[str, list[float]]:
    """``field=a,b,c`` or ``field=start:stop:count``."""
    name, _, values = text.partition("=")
    try:
        if ":" in values:
            start, stop, text_count = values.split(":")
            count = int(text_count)
            _checks.whole_within(f"the count of --grid {name}", count, 1, MOST_POINTS)
            numbers = np.linspace(float(start), float(stop), count).tolist()
        else:
            numbers = [float(value) for value in values.split(",")]
    except ValueError as error:
        if "count of" in str(error):
            raise
        raise ValueError(f"--grid must look like gamma=0.1,1,10 or beta=0:1:5, got {text!r}") from None
    return name.strip().replace("-", "_"), numbers


def _read_toml(path: str) -> dict[str, Any]:
    try:
        content = tomllib.loads(read_text(path))
    except FileNotFoundError:
        raise ValueError(f"sweep file {path!r} does not exist; check the path") from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ValueError(f"sweep file {path!r} is not valid TOML: {error}") from None
    unknown = sorted(set(content) - {"setting", "grid", "alpha", "draws", "seed", "method", "noise"})
    if unknown:
        raise ValueError(f"sweep file {path!r} has unknown keys {', '.join(unknown)}; see rmt sweep --help")
    for key in ("setting", "grid"):
        if not isinstance(content.get(key, {}), dict):
            raise ValueError(f"sweep file {path!r}: {key} must be a table, got {content[key]!r}")
    for name, values in content.get("grid", {}).items():
        if not isinstance(values, list):
            raise ValueError(f"sweep file {path!r}: grid.{name} must be a list of values, got {values!r}")
    for key in ("method", "noise"):
        if not isinstance(content.get(key, ""), str):
            raise ValueError(f"sweep file {path!r}: {key} must be a text, got {content[key]!r}")
    return content


def _run_sweep(arguments: argparse.Namespace) -> int:
    from rmt.plot import sweep_curves
    from rmt.sweep import grid, run_sweep

    if not arguments.out.strip():
        raise ValueError("--out is empty; name a folder")
    _checks.one_of("--format", arguments.format, ("csv", "parquet"))
    content = _read_toml(arguments.file) if arguments.file else {}
    base = from_dict(content.get("setting", {}) | _given(arguments))
    given = [_axis(text) for text in arguments.grid]
    twice = sorted({name for name, _ in given if [other for other, _ in given].count(name) > 1})
    if twice:
        raise ValueError(f"--grid {twice[0]} is given twice; list all its values in one --grid")
    axes = dict(content.get("grid", {})) | dict(given)
    if not axes:
        raise ValueError("a sweep needs at least one axis; give --grid FIELD=… or a [grid] table in the file")
    arguments.noise = arguments.noise or content.get("noise")
    method, options = _method(arguments, content.get("method", "exact"))
    table = run_sweep(
        grid(base, axes),
        arguments.out,
        alpha=_alpha(arguments.alpha, content.get("alpha", [1.0])),
        draws=content.get("draws", 200) if arguments.draws is None else arguments.draws,
        seed=content.get("seed", 0) if arguments.seed is None else arguments.seed,
        method=method,
        n_jobs=arguments.jobs,
        progress=True,
        options=options,
    )
    folder = Path(arguments.out)
    write = table.to_csv if arguments.format == "csv" else table.to_parquet
    written = {
        "table": str(write(folder / f"sweep.{arguments.format}")),
        "points": len({row["point"] for row in table.rows}),
    }
    try:
        figure = sweep_curves(table.rows, next(iter(axes)))
    except ModuleNotFoundError:
        print("no plot: install matplotlib (extra 'plot')", file=sys.stderr)
    else:
        picture = io.BytesIO()
        figure.savefig(picture, format="png", dpi=150)
        written["plot"] = str(write_atomic(folder / "sweep.png", picture.getvalue()))
    print(to_json(written) if arguments.json else "\n".join(f"{key}: {value}" for key, value in written.items()))
    return 0


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    arguments = build_parser().parse_args(argv)
    commands = {"predict": _run_predict, "simulate": _run_simulate, "sweep": _run_sweep, "fit": fit.run}
    return run(f"rmt {arguments.command}", lambda: commands[arguments.command](arguments))
