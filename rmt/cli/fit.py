"""``rmt fit``: choose α and γ for features in .npy files."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rmt import _checks
from rmt._files import require_regular, to_json, write_atomic

EXAMPLES = """examples:
  rmt fit --features X.npy --labels y.npy --source w.npy --json
  rmt fit --features X.npy --labels y.npy --source w1.npy --source w2.npy --no-intercept --weights coef.npy

X.npy holds (n, p) numbers, y.npy (n,) labels, w.npy (p,) or (n_classes, p) source weights. Nothing is unpickled."""


def add_parser(subparsers: Any) -> None:
    """Add ``fit`` to the subparsers of the ``rmt`` command."""
    parser = subparsers.add_parser(
        "fit",
        help="α and γ from a training sample, and the accuracy to expect",
        description="Choose α and γ of a ridge fine-tuning on the training sample, and predict its accuracy.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--features", required=True, metavar="X.npy", help="(n, p) target features")
    parser.add_argument("--labels", required=True, metavar="y.npy", help="(n,) labels, two or more classes")
    parser.add_argument(
        "--source", action="append", default=[], metavar="w.npy", help="source weights; repeat for several"
    )
    parser.add_argument(
        "--alpha", type=float, action="append", help="fixed scale, one for each source (default: chosen)"
    )
    parser.add_argument("--gamma", type=float, default=None, help="fixed penalty, 'inf' allowed (default: chosen)")
    parser.add_argument("--method", default="auto", help="auto (default), plugin or loo")
    parser.add_argument("--covariance", default="ledoit-wolf", help="ledoit-wolf (default), empirical or identity")
    parser.add_argument(
        "--caution",
        type=float,
        default=0.0,
        help="how much the prior keeps to the source (default 0: the sample decides)",
    )
    parser.add_argument("--no-intercept", action="store_true", help="features are centred already")
    parser.add_argument("--weights", metavar="OUT.npy", help="write the fitted weights, intercept last")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Fit and print; returns 0.

    Raises:
        ValueError: a file or an option is not usable.
    """
    from rmt.choosing.classifier import AlphaRidgeClassifier

    X, y = _load("--features", arguments.features), _load("--labels", arguments.labels)
    sources = [_load("--source", path) for path in arguments.source]
    alpha: Any = "auto"
    if arguments.alpha:
        alpha = arguments.alpha[0] if len(arguments.alpha) == 1 else arguments.alpha
    model = AlphaRidgeClassifier(
        source=sources or None,
        alpha=alpha,
        gamma="auto" if arguments.gamma is None else arguments.gamma,
        method=arguments.method,
        covariance=arguments.covariance,
        intercept=not arguments.no_intercept,
        caution=arguments.caution,
    ).fit(X, y)
    paths: Any = [model.alpha_path_] if len(model.classes_) == 2 else model.alpha_path_
    answer = {
        "n": len(X),
        "p": X.shape[1],
        "classes": model.classes_,
        "alpha": model.alpha_,
        "gamma": model.gamma_,
        "predicted_accuracy": model.predicted_accuracy_,
        "interval": model.predicted_accuracy_interval_,
        "path": [{"gamma": one.gamma, "alpha": one.alpha, "accuracy": one.accuracy} for one in paths],
    }
    if arguments.weights:
        write_npy(arguments.weights, np.column_stack([model.coef_, model.intercept_]))
        answer["weights"] = arguments.weights
    if arguments.json:
        print(to_json(answer))
        return 0
    low, high = model.predicted_accuracy_interval_
    print(f"{'samples, features':<22}{len(X)}, {X.shape[1]}")
    print(f"{'alpha':<22}{np.array2string(np.asarray(model.alpha_), precision=4)}")
    print(f"{'gamma':<22}{np.array2string(np.asarray(model.gamma_), precision=4)}")
    print(f"{'predicted accuracy':<22}{model.predicted_accuracy_:.4f}  (95 %: {low:.4f} to {high:.4f})")
    return 0


def write_npy(path: str, array: Any) -> Path:
    """Write one array as .npy, whole or not at all."""
    import io

    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=False)
    return write_atomic(path, stream.getvalue())


def _load(flag: str, path: str) -> NDArray[Any]:
    require_regular(path)
    try:
        # A map first: a header that promises more than the file holds is found before anything is allocated.
        array = np.load(path, allow_pickle=False, mmap_mode="r")
        array = np.array(array) if isinstance(array, np.memmap) else array
    except FileNotFoundError:
        raise ValueError(f"{flag} {path!r} does not exist; check the path") from None
    except IsADirectoryError:
        raise ValueError(f"{flag} {path!r} is a folder; give a .npy file") from None
    except PermissionError:
        raise
    except (ValueError, EOFError, OSError, OverflowError, SyntaxError, TypeError) as error:
        raise ValueError(f"{flag} {path!r} is not a plain .npy file ({error}); write it with numpy.save") from None
    if not isinstance(array, np.ndarray):
        raise ValueError(f"{flag} {path!r} is an archive of arrays; give one .npy file")
    if array.dtype.kind == "c":
        raise ValueError(f"{flag} {path!r} holds complex numbers; give real ones")
    return array if flag == "--labels" else _checks.finite(flag, array)
