"""α-LoRA against LoRA on GLUE, with tuned learning rates and equal work for both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paper_checks.core import SMALL, Check, Context, Figures, Outcome, Row, Verdict
from paper_checks.statistics.paired import Paired, choice_weights, over_choices, paired
from paper_checks.statistics.rates import settle
from paper_checks.studies import cost
from paper_checks.studies.glue.study import METHODS, Study, adapt, final, score, selection, task_and_settings
from rmt.plot import COLOURS, dots, name_axes, panels

CLAIMED = "alpha_scheduled"
MIDDLE = 2e-3  #: the middle rate of the grid that LoRA and α-LoRA share
SELECTION = 0.2  #: part of the training examples that learning rates are tried on
DEFAULT_SIZE = 2000  #: training examples where a task takes all: an understatement, hence more noise of the choice
LABELS = {
    "lora": "LoRA, tuned",
    "alpha_scheduled": "α-LoRA, Algorithm 1",
    "alpha_joint": "α-LoRA, joint",
    "linear_probe": "linear probe",
    "glora": "GLoRA (A vector, B low-rank, E vector)",
    "glora_balanced": "GLoRA (the same, balanced steps)",
    "lora_recipe": "LoRA, paper's recipe",
    "alpha_recipe": "α-LoRA, paper's recipe",
}


class GlueFair(Check):
    """See the module's docstring."""

    id = "alpha_lora.glue_fair"
    claim = "α-LoRA beats LoRA on every GLUE task, also at equal work and with tuned learning rates."
    short = "α-LoRA beats LoRA on GLUE at equal work and tuned rates."
    shown = ("MRPC: α-LoRA − LoRA over", "points, MRPC")
    scale = "MiniLM-L6, 1,500 and 2,000 examples (paper: RoBERTa-base)"
    words = SMALL
    where = "α-LoRA, Table 2 (six tasks, RoBERTa-base); here MiniLM-L6, SST-2 and MRPC, parts of train"
    rule = (
        "Per task both methods make final runs at the same three learning rates with the same five seeds and the same "
        "number of passes, α's counted. Each is taken at the rate that the accuracy on a part of train would choose; "
        "that choice is drawn again with its binomial error, every run weighs by how often its rate is chosen, and "
        "what the choice adds is a part of the interval: paired difference of accuracy on the development set, "
        "α-LoRA (Algorithm 1, held-out batches) minus LoRA, 95 % t-interval over examples, seeds and choices. "
        "Reproduced if every task's interval lies above 0; not reproduced if one task's lies below; else undecided. A "
        "task whose best method does not beat the majority class by two standard errors decides nothing, and with "
        "runs of these two methods missing the verdict is undecided."
    )
    needs = ("data/glue", "models/minilm-l6", "about 2.5 hours of one CPU core")
    baseline, claimed = "lora", CLAIMED
    study = Study(
        tasks={"sst2": 2000, "mrpc": 1500},
        methods=("lora", "alpha_scheduled", "linear_probe", "alpha_joint", "glora"),
    )

    def cells(self, context: Context) -> Sequence[str]:
        if context.quick:
            return ["sst2.lora.rate0.002", "sst2.lora.seed0"]
        return [*self.study.cells(), *self.study.costs()]

    def compute(self, context: Context, cell: str) -> Figures:
        task, method, step = cell.split(".", 2)
        if task == "cost":
            return cost.measure(self, context, f"{method}.{step}", against=f"{method}.{self.baseline}")
        if step.startswith("rate"):
            return selection(self.study, context, task, method, float(step[4:]))
        fixed, _, seed = step.rpartition(".")
        number = int(seed[4:])
        rate = float(fixed[2:]) if fixed else self._rate(context, task, method)
        # α is replaced in runs at the middle rate, which both methods share, and in the first at the chosen one.
        replaced = method == CLAIMED and (number == 0 if not fixed else rate == MIDDLE)
        if fixed and (stored := self._same_run(context, task, method, rate, number, replaced)) is not None:
            return stored
        return final(self.study, context, task, method, rate, number, replaced=replaced)

    def _rate(self, context: Context, task: str, method: str) -> float:
        """The learning rate chosen by the loss on validation."""
        grid = (2e-3,) if context.quick else METHODS[method].rates
        return settle(grid, lambda rate: score(self.need(context, f"{task}.{method}.rate{rate:g}")))

    def _same_run(
        self, context: Context, task: str, method: str, rate: float, seed: int, replaced: bool
    ) -> Figures | None:
        """Figures of a stored run with this rate and seed that was made under another name, and that name, if any."""
        stored = self.finished(context.out)
        for name in (f"{task}.{method}.seed{seed}", f"{task}.{method}.accuracy.seed{seed}"):
            figures = stored.get(name)
            if figures and figures["rate"] == rate and ("affine" in figures or not replaced):
                return {**figures, "copied_from": name}
        return None

    def subject(self, context: Context, method: str) -> cost.Subject:
        """What is trained in the cell ``task.method``, for `paper_checks.studies.cost`."""
        task_name, _, name = method.partition(".")
        chosen = METHODS[name]
        task, settings = task_and_settings(self.study, context, task_name, chosen, chosen.rates[0], 0, split="train")
        return cost.Subject(task, settings, lambda model: adapt(model, chosen, task.heads, 0))

    def judge(self, cells: Mapping[str, Figures]) -> Outcome:
        planned = self.study.cells()
        claim = replace(self.study, methods=(self.baseline, self.claimed)).cells()
        rows: list[Row] = []
        sentences: list[str] = []
        below: list[str] = []
        above: list[str] = []
        for task in self.study.tasks:
            finals = self._finals(cells, task)
            if not finals:
                continue
            name = task.upper()
            rows += _rows(name, finals, self.baseline)
            rows += _curve_rows(name, self.curves(cells, task), self.gain(cells, task))
            prefix = f"cost.{task}."
            costs = {cell.removeprefix(prefix): figures for cell, figures in cells.items() if cell.startswith(prefix)}
            rows += cost.rows(costs, partial(_label, name))
            sentence, sign = self._sentence(cells, task, finals)
            sentences.append(sentence)
            if sign:
                (above if sign > 0 else below).append(task)
        missing = [cell for cell in planned if cell not in cells]
        progress = f"Not complete: {len(planned) - len(missing)} of {len(planned)} cells. " if missing else ""
        summary = progress + (" ".join(sentences) or "Only learning rates have been tried so far.")
        if any(cell in claim for cell in missing):
            return Outcome(Verdict.UNDECIDED, summary, tuple(rows))
        if below:
            return Outcome(Verdict.NOT_REPRODUCED, summary, tuple(rows))
        reproduced = len(above) == len(self.study.tasks)
        return Outcome(Verdict.REPRODUCED if reproduced else Verdict.UNDECIDED, summary, tuple(rows))

    def _finals(self, cells: Mapping[str, Figures], task: str) -> dict[str, list[Figures]]:
        """Final runs at the chosen rate by method, seed 0 first and without gaps."""
        found: dict[str, list[Figures]] = {}
        for method in self.study.methods:
            for cell in self.study.finals(task, method):
                if cell not in cells:
                    break
                found.setdefault(method, []).append(cells[cell])
        return found

    def curves(self, cells: Mapping[str, Figures], task: str) -> dict[str, dict[float, list[Figures]]]:
        """Final runs of the two methods at every rate of the grid, over the seeds that both have at all rates.

        A method with a single rate has its final runs.
        """
        pair = (self.baseline, self.claimed)
        if not any(self.study.curve(task, method, 0) for method in pair):
            finals = self._finals(cells, task)
            both = min(len(finals.get(method, [])) for method in pair)
            return {m: {float(finals[m][0]["rate"]): finals[m][:both]} for m in pair} if both else {}
        whole = [
            seed
            for seed in range(self.study.curve_seeds)
            if all(cell in cells for method in pair for cell in self.study.curve(task, method, seed))
        ]
        found: dict[str, dict[float, list[Figures]]] = {}
        for method in pair:
            for seed in whole:
                for cell in self.study.curve(task, method, seed):
                    found.setdefault(method, {}).setdefault(float(cells[cell]["rate"]), []).append(cells[cell])
        return found

    def gain(self, cells: Mapping[str, Figures], task: str) -> Paired | None:
        """α-LoRA minus LoRA with the noise of both choices; None while no seed is complete."""
        curves = self.curves(cells, task)
        if not curves:
            return None
        weights = []
        tried_on = round(SELECTION * (self.study.tasks[task] or DEFAULT_SIZE))
        for method in (self.baseline, self.claimed):
            rates = list(curves[method])
            if len(rates) == 1:
                weights.append({rates[0]: 1.0})
                continue
            tried = {rate: cells.get(f"{task}.{method}.rate{rate:g}") for rate in rates}
            accuracy = {rate: f["validation"]["accuracy"] for rate, f in tried.items() if f is not None}
            if len(accuracy) < len(rates):
                return None
            weights.append(choice_weights(accuracy, tried_on))
        return over_choices(curves[self.claimed], curves[self.baseline], (weights[1], weights[0]), tried_on)

    def _sentence(self, cells: Mapping[str, Figures], task: str, finals: dict[str, list[Figures]]) -> tuple[str, int]:
        """What a task says, and the sign of α-LoRA's gain if it is decided (0: it is not)."""
        name = task.upper()
        curves = self.curves(cells, task)
        every = {**finals, **{f"{m} at {rate:g}": runs for m, by in curves.items() for rate, runs in by.items()}}
        best = max(every, key=lambda method: _accuracies(every[method]).mean())
        figures = every[best][0]
        share, majority = _accuracies(every[best]).mean() / 100, figures["majority"] / 100
        error = np.sqrt(share * (1 - share) / len(figures["correct"]))
        if share - majority <= 2 * error:
            return (
                f"{name}: the best method ({LABELS.get(best, best)}, {100 * share:.1f} %) does not beat the majority "
                f"class ({100 * majority:.1f} %) by two standard errors ({100 * error:.1f}): it decides nothing.",
                0,
            )
        gain = self.gain(cells, task)
        if gain is None:
            return f"{name}: no seed is complete at every rate yet.", 0
        seeds = len(next(iter(curves[self.claimed].values())))
        low, high = gain.interval
        text = f"{name}: α-LoRA − LoRA = {gain.text} points, {seeds} seeds"
        if low <= 0 <= high:
            return f"{text}; {gain.needed}.", 0
        return f"{text}.", 1 if low > 0 else -1

    def draw(self, cells: Mapping[str, Figures]) -> Any:
        """Paired differences to LoRA, and the accuracy of both methods of the claim along the rates."""
        tasks = [task for task in self.study.tasks if self._finals(cells, task)]
        if not tasks:
            return None
        figure, axes = panels(2, len(tasks), width=4.6, height=3.2)
        for row, task in zip(axes, tasks, strict=True):
            finals = self._finals(cells, task)
            others = [m for m in finals if m != self.baseline and self.baseline in finals]
            for place, method in enumerate(others):
                both = min(len(finals[method]), len(finals[self.baseline]))
                gain = paired(finals[method][:both], finals[self.baseline][:both])
                dots(row[0], [place], [gain.mean], [gain.error], colour=COLOURS[1], label=None)
            row[0].axhline(0.0, color=COLOURS[0], linewidth=0.9)
            row[0].set_xticks(range(len(others)), [_short(method) for method in others], fontsize=7.5)
            row[0].set_xlim(-0.5, max(len(others), 1) - 0.5)
            name_axes(row[0], "", "accuracy − LoRA's (points)", f"{task.upper()}, rates chosen by the loss")
            for colour, method in zip(COLOURS, (self.baseline, self.claimed), strict=False):
                # Runs at a rate count here whether or not their seed is complete.
                found: dict[float, list[float]] = {}
                for seed in range(self.study.curve_seeds):
                    for cell in self.study.curve(task, method, seed):
                        if cell in cells:
                            found.setdefault(float(cells[cell]["rate"]), []).append(cells[cell]["accuracy"])
                if not found:
                    found = {float(f["rate"]): [g["accuracy"] for g in finals[method]] for f in finals.get(method, [])}
                for rate in sorted(found):
                    row[1].plot([rate] * len(found[rate]), found[rate], "o", color=colour, markersize=3, alpha=0.5)
                means = [float(np.mean(found[rate])) for rate in sorted(found)]
                row[1].plot(sorted(found), means, color=colour, linewidth=1.2, label=LABELS.get(method, method))
            if finals:
                majority = next(iter(finals.values()))[0]["majority"]
                row[1].axhline(majority, color=COLOURS[5], linewidth=0.8, linestyle=":", label="majority class")
            row[1].set_xscale("log")
            name_axes(row[1], "learning rate", "accuracy on development (%)", f"{task.upper()}, a dot a seed")
        handles, labels = axes[0, 1].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=7.5, frameon=False)
        return figure


def _short(method: str) -> str:
    """A method's name below an axis."""
    names = {
        "alpha_scheduled": "α-LoRA,\nAlgorithm 1",
        "alpha_joint": "α-LoRA,\njoint",
        "linear_probe": "linear\nprobe",
    }
    return names.get(method, LABELS.get(method, method).partition(" (")[0].replace(", ", ",\n"))


def _label(task: str, method: str) -> str:
    """What a method on a task is called in the rows."""
    return f"{task}, {LABELS.get(method, method)}"


def _accuracies(runs: list[Figures]) -> NDArray[np.floating[Any]]:
    """Accuracy of every run in percent."""
    return np.array([figures["accuracy"] for figures in runs])


def _rows(name: str, finals: Mapping[str, list[Figures]], baseline: str) -> list[Row]:
    """Accuracy, gain over the baseline, size and time of every method on a task."""
    rows = []
    for method, runs in finals.items():
        label, values = _label(name, method), _accuracies(runs)
        error = float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else None
        rows.append(Row(f"{label}: accuracy (%), {len(values)} seeds", None, float(values.mean()), error))
        both = min(len(runs), len(finals.get(baseline, [])))
        if method != baseline and both:
            gain = paired(runs[:both], finals[baseline][:both])
            rows.append(Row(f"{label} − {LABELS[baseline]} (points, 95 % interval)", None, gain.text))
        rows.append(Row(f"{label}: chosen learning rate", None, float(runs[0]["rate"])))
        rows.append(Row(f"{label}: trained parameters", None, float(runs[0]["parameters"])))
        seconds = float(np.median([figures["train_seconds"] for figures in runs]))
        rows.append(Row(f"{label}: training (s, on a machine that did other things too)", None, seconds))
    return rows


def _curve_rows(name: str, curves: Mapping[str, Mapping[float, list[Figures]]], gain: Paired | None) -> list[Row]:
    """Accuracy of both methods at every rate, and their difference over the choices."""
    rows = []
    for method, by_rate in curves.items():
        for rate, runs in sorted(by_rate.items()):
            values = _accuracies(runs)
            error = float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else None
            label = f"{_label(name, method)} at rate {rate:g}: accuracy (%), {len(values)} seeds"
            rows.append(Row(label, None, float(values.mean()), error))
    if gain is not None:
        rows.append(Row(f"{name}: α-LoRA − LoRA over the choices of rates (points, 95 % interval)", None, gain.text))
        for part in gain.parts:
            rows.append(Row(f"{name}: standard error from {part.what} (points)", None, part.variance**0.5))
    return rows


#: The study whose finished runs other checks read.
FAIR = GlueFair()
