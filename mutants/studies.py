"""Questions to the verdicts, for a mutant to answer otherwise.

Formulas and layers are judged by quick cells of the checks that rest on them. Statistics and verdict code are judged by
studies: the committed cells, bent copies of them (figures scaled, answers flipped, cells taken away) and the simulated
studies of the tests between both hypotheses. Everything is drawn by fixed seeds.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from paper_checks.core import Check, Context, all_checks

#: Module -> quick cells that show a fault in it, fastest first: (check, its cells; all of them for none).
_SQUARE = (("alpha_lora.beyond", ("optima", "covariance")), ("alpha_lora.several_sources", ()))
_RIDGE = (("alpha_lora.arbitrary_source", ()), ("alpha_lora.ridge_source", ()), ("alpha_lora.regularisation", ()))
_LAYERS = (("glora.special_cases", ()), ("glora.hypothesis_class", ()), ("glora.merging", ()))
QUICK: dict[str, tuple[tuple[str, tuple[str, ...]], ...]] = {
    "rmt/linear/isotropic.py": (*_SQUARE, *_RIDGE),
    "rmt/linear/gaussian.py": (_SQUARE[0],),
    "rmt/linear/regression.py": (("alpha_lora.regression", ()),),
    "rmt/linear/forms.py": (*_SQUARE, *_RIDGE),
    "rmt/resolvent.py": (*_SQUARE, *_RIDGE, ("alpha_lora.regression", ())),
    "rmt/scores/quadratic.py": (*_SQUARE, *_RIDGE),
    "rmt/losses.py": (("alpha_lora.beyond", ("losses", "classes")),),
    "rmt/convex/fixed_point.py": (("alpha_lora.beyond", ("losses", "subspace", "elliptical")),),
    "rmt/convex/mixture.py": (("alpha_lora.beyond", ("elliptical", "classes")),),
    "rmt/beyond/classes.py": (("alpha_lora.beyond", ("classes",)),),
    "rmt/beyond/class_model.py": (("alpha_lora.beyond", ("classes",)),),
    "rmt/beyond/elliptical.py": (("alpha_lora.beyond", ("elliptical",)),),
    "rmt/beyond/subspace.py": (("alpha_lora.beyond", ("subspace",)),),
}
BENT = 60  #: bent copies of the committed cells
STEPS = 9  #: simulated studies from the one hypothesis to the other, twice


def quick(path: str) -> Iterator[tuple[str, str]]:
    """Check and verdict of the quick cells that rest on a module; a crash is a verdict of its own."""
    for name, cells in QUICK.get(path, _LAYERS):
        check = all_checks()[name]
        with tempfile.TemporaryDirectory() as out:
            context = Context(out=Path(out), quick=True)
            try:
                found = {cell: plain(check.compute(context, cell)) for cell in cells or check.cells(context)}
                verdict = str(check.outcome(found).verdict)
            except Exception as error:
                verdict = f"crashed: {type(error).__name__}"
        yield name, verdict


def plain(figures: Any) -> Any:
    """Figures as they come back from a file."""
    import json

    from rmt._files import to_plain

    return json.loads(json.dumps(to_plain(figures)))


def studies(name: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Cells to judge by a check, each with the name of where they are from."""
    from tests.paper_checks.test_power_of_rules import SIMULATED

    stored = all_checks()[name].finished()
    if stored:
        yield "record", stored
    if name in SIMULATED:
        make, true, false = SIMULATED[name]
        for step, gain in enumerate(np.repeat(np.linspace(false, true, STEPS), 2)):
            yield "simulated", make(np.random.default_rng([17, step]), float(gain))
    for copy in range(BENT if stored else 0):
        yield "bent", bend(stored, random.Random(f"{name}/{copy}"))


def verdicts(name: str) -> Iterator[tuple[str, str]]:
    """Where the study is from and what the check says of it; an error is a verdict of its own."""
    check: Check = all_checks()[name]
    for source, cells in studies(name):
        try:
            yield source, str(check.outcome(cells).verdict)
        except Exception as error:
            yield source, f"crashed: {type(error).__name__}"


def bend(cells: Mapping[str, Any], draw: random.Random) -> dict[str, Any]:
    """A copy in which some kinds of figures are scaled, in all cells or in one, answers flipped, or cells gone."""
    share = draw.choice((0.05, 0.2, 0.5))
    factors: dict[str, float] = {}

    def factor(key: str) -> float:
        if key not in factors:
            bent = draw.random() < share
            factors[key] = draw.choice((0.0, -1.0, *(10 ** draw.uniform(-1.5, 1.5) for _ in range(8)))) if bent else 1.0
        return factors[key]

    def bent(value: Any, key: str, cell: str) -> Any:
        if isinstance(value, dict):
            return {name: bent(one, name, cell) for name, one in value.items()}
        if isinstance(value, list):
            return [bent(one, f"{key}[{place}]" if len(value) < 6 else key, cell) for place, one in enumerate(value)]
        if isinstance(value, float):
            return value * factor(key) * (factor(f"{cell}/{key}") if share == 0.05 else 1.0)
        if isinstance(value, str) and len(value) >= 20 and set(value) <= {"0", "1"}:
            worse = min(abs(factor(f"{cell.rpartition('.')[0] or cell}/{key}") - 1.0), 1.0) * 0.3
            return "".join("0" if one == "1" and draw.random() < worse else one for one in value)
        return value

    gone = draw.random() < 0.15
    return {
        cell: bent(figures, "", cell) for cell, figures in cells.items() if not (gone and draw.random() < 0.3)
    } or dict(cells)
