"""LoRA with a tuned learning rate against its variants, each tuned as well: do they end within two points?

    paper-checks run tuned_lora --data DIR --out paper_checks/results

Most cells are those of the GLUE study and of the vision study with balanced steps, read where these keep them; rsLoRA,
DoRA and a HiRA-type adapter (W₀ ∘ BA) are trained here, by the GLUE study's protocol (about seven core-hours).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from paper_checks.core import COMMITTED, SMALL, Check, Context, Figures, NotAvailable, Outcome, Row, Verdict
from paper_checks.statistics.answers import unpack
from paper_checks.statistics.paired import Paired, paired_values
from paper_checks.statistics.rates import settle
from paper_checks.studies.glue.study import METHODS, Study, final, score, selection
from rmt._files import read_json

MARGIN = 2.0  #: points; the paper says within 1 to 2 %
SEEDS = 3
GLUE, VISION, BALANCED = "alpha_lora.glue_fair", "glora.vtab", "glora.vtab_balanced"
#: Task -> where the runs of LoRA and of its variants lie; a variant without a home is trained here.
HOMES: dict[str, dict[str, str]] = {
    **{
        task: {
            "lora": GLUE,
            "alpha_joint": GLUE,
            "alpha_scheduled": GLUE,
            "glora": GLUE,
            "rslora": "",
            "dora": "",
            "hira": "",
        }
        for task in ("sst2", "mrpc")
    },
    **{task: {"lora": BALANCED, "glora_fixed": BALANCED, "glora_searched": BALANCED} for task in ("cifar10", "gtsrb")},
}
LABELS = {
    "alpha_joint": "α-LoRA, α trained along",
    "alpha_scheduled": "α-LoRA, Algorithm 1",
    "glora": "GLoRA (A and E vectors), one rate",
    "glora_fixed": "fixed GLoRA, balanced steps",
    "glora_searched": "searched GLoRA, balanced steps",
    "rslora": "rsLoRA",
    "dora": "DoRA",
    "hira": "HiRA-type (W₀ ∘ BA)",
}


class Variants(Check):
    """See the module's docstring."""

    id = "tuned_lora.variants"
    claim = "With its learning rate tuned, plain LoRA ends within 1 to 2 % of its variants, tuned as well."
    short = "With tuned rates, LoRA ends within two points of its variants."
    shown = ("mrpc: α-LoRA, α trained along", "points, α-LoRA on MRPC")
    scale = "MiniLM and ViT-S/14, four tasks (paper: language models)"
    where = "arXiv 2602.04998, abstract"
    words = SMALL
    needs = ("data/glue", "models/minilm-l6", "PyTorch, transformers, PEFT", "about 7 h of one core")
    rule = (
        "Every method has its learning rate chosen on validation from a grid of its own; the test difference of a "
        f"variant from LoRA, paired over examples and {SEEDS} seeds, has an interval of level 1 − .05/k for k "
        f"differences. Not reproduced if one lies wholly outside ±{MARGIN:g} points; reproduced if every variant ran "
        f"on every task it is planned for and all intervals lie within ±{MARGIN:g}; else undecided. Written when "
        "figures of α-LoRA and GLoRA on GLUE were known from other checks; those of rsLoRA, DoRA, HiRA and of balanced "
        "steps were not."
    )
    study = Study(tasks={"sst2": 2000, "mrpc": 1500}, methods=("lora", "rslora", "dora", "hira"))

    def cells(self, context: Context) -> Sequence[str]:
        if context.quick:
            return ["sst2.rslora.rate0.002", "sst2.rslora.seed0"]
        borrowed, own = [], []
        for task, homes in HOMES.items():
            for method, home in homes.items():
                if home:
                    borrowed += [run_name(task, method, seed) for seed in range(SEEDS)]
                else:
                    own += [*self.study.rates(task, method), *self.study.finals(task, method)]
        return [*borrowed, *own]

    def _path(self, context: Context, cell: str) -> Path:
        task, method = parts(cell)
        return context.out / (HOMES[task][method] or self.id) / f"{cell}.json"

    def records(self, folder: Path = COMMITTED) -> dict[str, dict[str, Any]]:
        """Records of its own cells and of those that it borrows."""
        context = Context(out=folder)
        paths = {cell: self._path(context, cell) for cell in self.cells(context)}
        return {cell: read_json(path) for cell, path in paths.items() if path.is_file()}

    def compute(self, context: Context, cell: str) -> Figures:
        task, method = parts(cell)
        if home := HOMES[task][method]:
            raise NotAvailable(f"needs cells of {home}; run that check first")
        step = cell.split(".", 2)[2]
        if step.startswith("rate"):
            return selection(self.study, context, task, method, float(step[4:]))
        grid = (2e-3,) if context.quick else METHODS[method].rates
        rate = settle(grid, lambda one: score(self.need(context, f"{task}.{method}.rate{one:g}")))
        return final(self.study, context, task, method, rate, int(step[4:]))

    def judge(self, cells: Mapping[str, Figures]) -> Outcome:
        found, missing = differences(cells)
        level = 1.0 - 0.05 / max(len(found), 1)
        rows = [
            Row(f"{task}: {LABELS[method]} − LoRA (points, 95 % interval)", None, one.text)
            for (task, method), one in found.items()
        ]
        intervals = {name: one.interval_at(level) for name, one in found.items()}
        outside = [name for name, (low, high) in intervals.items() if low > MARGIN or high < -MARGIN]
        inside = [name for name, (low, high) in intervals.items() if low >= -MARGIN and high <= MARGIN]
        said = f"{len(inside)} of {len(found)} differences lie within ±{MARGIN:g} points with their whole intervals"
        if outside:
            said += "; outside lie " + ", ".join(f"{LABELS[method]} on {task}" for task, method in outside)
        if missing:
            names: dict[str, list[str]] = {}
            for task, method in missing:
                names.setdefault(LABELS[method], []).append(task)
            said += "; not run: " + ", ".join(f"{name} ({', '.join(tasks)})" for name, tasks in names.items())
        widest = max(found.values(), key=lambda one: one.error, default=None)
        if widest is not None and len(inside) + len(outside) < len(found):
            said += f"; the widest has a standard error of {widest.error:.2f} points, and to lie inside takes about "
            said += f"{MARGIN / 3:.1f}"
        if outside:
            return Outcome(Verdict.NOT_REPRODUCED, said + ".", tuple(rows))
        whole = not missing and len(inside) == len(found)
        return Outcome(Verdict.REPRODUCED if whole else Verdict.UNDECIDED, said + ".", tuple(rows))


def run_name(task: str, method: str, seed: int) -> str:
    """The cell of a final run, as its study calls it."""
    language = HOMES[task]["lora"] == GLUE
    return f"{task}.{method}.seed{seed}" if language else f"final-{task}-{method}-s{seed}"


def parts(cell: str) -> tuple[str, str]:
    """Task and method of a cell."""
    _, task, method = re.split(r"[.-]", cell)[:3] if cell.startswith("final-") else ("", *cell.split(".")[:2])
    return task, method


def differences(
    cells: Mapping[str, Figures],
) -> tuple[dict[tuple[str, str], Paired], list[tuple[str, str]]]:
    """Variant minus LoRA by task and variant, and the pairs that lack a run."""
    found, missing = {}, []
    for task, homes in HOMES.items():
        for method in homes:
            if method == "lora":
                continue
            names = [[run_name(task, one, seed) for seed in range(SEEDS)] for one in (method, "lora")]
            if any(name not in cells for run in names for name in run):
                missing.append((task, method))
                continue
            variant, lora = (np.array([right(cells[name]) for name in run]) for run in names)
            found[task, method] = paired_values(100.0 * (variant - lora))
    return found, missing


def right(figures: Figures) -> Any:
    """Right answers of a run, 0 and 1."""
    if "correct" in figures:
        return np.array([float(one) for one in figures["correct"]])
    return unpack(figures["right"]).astype(float)


CHECK = Variants()
