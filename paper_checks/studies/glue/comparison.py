"""α-LoRA against LoRA on GLUE, with tuned learning rates and equal work for both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paper_checks.core import Check, Context, Figures, Outcome, Row, Verdict
from paper_checks.statistics.paired import paired
from paper_checks.statistics.rates import settle
from paper_checks.studies import cost
from paper_checks.studies.glue.study import METHODS, Study, adapt, final, score, selection, task_and_settings
from rmt.plot import COLOURS, dots, legend, name_axes, panels

CLAIMED = "alpha_scheduled"
LABELS = {
    "lora": "LoRA, tuned",
    "alpha_scheduled": "α-LoRA, Algorithm 1",
    "alpha_joint": "α-LoRA, joint",
    "linear_probe": "linear probe",
    "glora": "GLoRA (A vector, B low-rank, E vector)",
    "lora_recipe": "LoRA, paper's recipe",
    "alpha_recipe": "α-LoRA, paper's recipe",
}


class GlueFair(Check):
    """See the module's docstring."""

    id = "alpha_lora.glue_fair"
    claim = "α-LoRA beats LoRA on every GLUE task, also at equal work and with tuned learning rates."
    where = "α-LoRA, Table 2 (six tasks, RoBERTa-base); here MiniLM-L6, SST-2 and MRPC, parts of train"
    rule = (
        "Per task: paired difference of accuracy on the development set over the seeds, α-LoRA (Algorithm 1, "
        "held-out batches) minus LoRA, both with the same number of passes, α's counted; 95 % t-interval over "
        "examples and seeds. Each has the learning rate that a part of train chose (three, and more while the best "
        "lies at an end of them; one seed), once by the loss and once by the accuracy. Reproduced if every task's "
        "interval lies above 0 with either choice; not reproduced if one task's lies below with either; else "
        "undecided. A task whose best method does not beat the majority class by two standard errors decides "
        "nothing, and with cells of these two methods missing the verdict is undecided."
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
        by, _, seed = step.rpartition(".")
        number, rate = int(seed[4:]), self._rate(context, task, method, by or "loss")
        if by and rate == self._rate(context, task, method, "loss"):
            return self.need(context, f"{task}.{method}.{seed}")
        replaced = method == CLAIMED and number == 0 and not by
        return final(self.study, context, task, method, rate, number, replaced=replaced)

    def _rate(self, context: Context, task: str, method: str, by: str) -> float:
        """The learning rate chosen by the loss or the accuracy on validation."""
        grid = (2e-3,) if context.quick else METHODS[method].rates
        return settle(grid, lambda rate: score(self.need(context, f"{task}.{method}.rate{rate:g}"), by))

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
            prefix = f"cost.{task}."
            costs = {cell.removeprefix(prefix): figures for cell, figures in cells.items() if cell.startswith(prefix)}
            rows += cost.rows(costs, partial(_label, name))
            sentence, sign = self._sentence(name, finals)
            again = self._finals(cells, task, "accuracy")
            if set(again) == {self.baseline, self.claimed}:
                second, other = self._sentence(name, finals | again)
                sentence += f" Rates chosen by accuracy: {second.removeprefix(f'{name}: ')}"
                sign = sign if other == sign else 0
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

    def _finals(self, cells: Mapping[str, Figures], task: str, by: str = "loss") -> dict[str, list[Figures]]:
        """Final runs by method, seed 0 first and without gaps."""
        found: dict[str, list[Figures]] = {}
        for method in self.study.methods:
            for cell in self.study.finals(task, method, by):
                if cell not in cells:
                    break
                found.setdefault(method, []).append(cells[cell])
        return found

    def _sentence(self, name: str, finals: dict[str, list[Figures]]) -> tuple[str, int]:
        """What a task says, and the sign of α-LoRA's gain if it is decided (0: it is not)."""
        best = max(finals, key=lambda method: _accuracies(finals[method]).mean())
        figures = finals[best][0]
        share, majority = _accuracies(finals[best]).mean() / 100, figures["majority"] / 100
        error = np.sqrt(share * (1 - share) / len(figures["correct"]))
        if share - majority <= 2 * error:
            return (
                f"{name}: the best method ({LABELS.get(best, best)}, {100 * share:.1f} %) does not beat the majority "
                f"class ({100 * majority:.1f} %) by two standard errors ({100 * error:.1f}): it decides nothing.",
                0,
            )
        both = min(len(finals.get(self.baseline, [])), len(finals.get(self.claimed, [])))
        if not both:
            return f"{name}: α-LoRA and LoRA have no final run in common yet.", 0
        gain = paired(finals[self.claimed][:both], finals[self.baseline][:both])
        low, high = gain.interval
        text = f"{name}: α-LoRA − LoRA = {gain.mean:+.2f} points [{low:+.2f}, {high:+.2f}], {both} seeds"
        if low <= 0 <= high:
            return (
                f"{text}; {gain.more} as many examples and seeds would decide a gain of that size.",
                0,
            )
        return f"{text}.", 1 if low > 0 else -1

    def draw(self, cells: Mapping[str, Figures]) -> Any:
        """Paired differences to LoRA, and the validation curves of the chosen learning rates."""
        tasks = [task for task in self.study.tasks if self._finals(cells, task)]
        if not tasks:
            return None
        chosen_rates = any(self.study.rates(task, self.baseline) for task in tasks)
        figure, axes = panels(2 if chosen_rates else 1, len(tasks), width=4.2, height=3.0)
        for row, task in zip(axes, tasks, strict=True):
            finals = self._finals(cells, task)
            others = [m for m in finals if m != self.baseline and self.baseline in finals]
            for colour, (place, method) in zip(COLOURS[1:], enumerate(others), strict=False):
                both = min(len(finals[method]), len(finals[self.baseline]))
                gain = paired(finals[method][:both], finals[self.baseline][:both])
                label = LABELS.get(method, method)
                dots(row[0], [place], [gain.mean], [gain.error], colour=colour, label=label)
            row[0].axhline(0.0, color=COLOURS[0], linewidth=0.9)
            row[0].set_xticks([])
            name_axes(row[0], "", "accuracy − LoRA's (points)", task.upper())
            if others:
                legend(row[0])
            if not chosen_rates:
                continue
            for colour, method in zip(COLOURS, self.study.methods, strict=False):
                tried = {cell: f for cell, f in cells.items() if cell.startswith(f"{task}.{method}.rate")}
                if tried:
                    curve = max(tried.values(), key=lambda f: score(f, "loss"))["curve"]
                    steps, accuracy = np.array(curve).T
                    row[1].plot(
                        steps, accuracy, color=colour, marker="o", markersize=3, label=LABELS.get(method, method)
                    )
            name_axes(row[1], "adapter steps", "accuracy on validation (%)", f"{task.upper()}, chosen learning rates")
            legend(row[1])
        return figure


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
            text = "{:+.2f} [{:+.2f}, {:+.2f}]".format(gain.mean, *gain.interval)
            rows.append(Row(f"{label} − {LABELS[baseline]} (points, 95 % interval)", None, text))
        rows.append(Row(f"{label}: chosen learning rate", None, float(runs[0]["rate"])))
        rows.append(Row(f"{label}: trained parameters", None, float(runs[0]["parameters"])))
        seconds = float(np.median([figures["train_seconds"] for figures in runs]))
        rows.append(Row(f"{label}: training (s, on a machine that did other things too)", None, seconds))
    return rows


#: The study whose finished runs other checks read.
FAIR = GlueFair()
