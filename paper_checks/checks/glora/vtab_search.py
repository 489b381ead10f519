"""Does the search find better subnets than chance does?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from paper_checks.core import SMALL, Context, Figures, Outcome, Row
from paper_checks.statistics.rates import settle
from paper_checks.studies.vision.balanced import SecondRow, again
from paper_checks.studies.vision.methods import label
from paper_checks.studies.vision.statistics import decide, paired, searches, table
from paper_checks.studies.vision.study import Study, answers

SUBNETS = ("glora_searched", "glora_random")


class VtabSearch(Study):
    """See the module's docstring."""

    id = "glora.vtab_search"
    claim = "The subnet that evolution finds is better than a random subnet of the same size."
    short = "Evolution finds better subnets than chance does."
    shown = ("searched − random, one rate", "points at a shared rate")
    scale = "ViT-S/14 at 56 px (paper: ViT-B/16)"
    words = SMALL
    where = "GLoRA, Section 2.5 (evolutionary search); no ablation against random subnets is reported"
    rule = (
        "Both subnets are trained afresh on train800val200, a new random subnet for each seed, and every subnet has a "
        "learning rate of its own, chosen on val200. Reproduced (not reproduced) if the 95 % interval of the paired "
        "test difference on these two tasks (Satterthwaite's degrees of freedom) lies above (below) 0; else "
        "undecided. Runs at the rate that was chosen with the first seed's subnet are reported and decide nothing; so "
        "are inherited weights, and how many validation images the searches asked."
    )

    def cells(self, context: Context) -> Sequence[str]:
        return [*dict.fromkeys(self.runs(SUBNETS)), *self._own()]

    def _own(self) -> list[str]:
        """Cells of subnets at a learning rate of their own."""
        seeds, tasks = range(self.plan.seeds), self.plan.tasks
        return [f"own-{task}-{method}-s{seed}" for seed in seeds for task in tasks for method in SUBNETS]

    def cell(self, context: Context, kind: str, task: str, words: Sequence[str]) -> Figures:
        """A subnet at a learning rate of its own; of the first seed's subnets the rates are known already."""
        if kind not in ("own", "ownrate"):
            return super().cell(context, kind, task, words)
        method, seed = words[0], int(words[1][1:])
        data = self._task(context, task)
        if kind == "ownrate":
            rate = float("-".join(words[2:]))
            model, figures = self._tune(context, data, method, self.plan.rate_epochs, rate, seed, "train")
            return {**figures, "validation": data.metrics(model, "validation")["accuracy"]}
        shared = self.need(context, f"final-{task}-{method}-s{seed}")
        name = f"ownrate-{task}-{method}-s{seed}"
        rate = (
            settle(self.plan.rates, lambda rate: self.need(context, f"{name}-{rate:g}")["validation"], self.plan.beyond)
            if seed
            else shared["lr"]
        )
        if rate == shared["lr"]:
            return {key: value for key, value in shared.items() if key != "corruptions"}
        import glora

        model, figures = self._tune(context, data, method, self.plan.epochs, rate, seed, "train+validation")
        return {**figures, **answers(data, glora.merged_copy(model), "test")}

    def judge(self, cells: Mapping[str, Figures]) -> Outcome:
        own = paired(cells, "glora_searched", "glora_random", "own") if set(self._own()) <= set(cells) else None
        verdict, summary = decide(own, "searched − random subnet, rates of their own", len(self.plan.tasks))
        shared = paired(cells, "glora_searched", "glora_random")
        rows = []
        if own is not None:
            rows.append(Row("searched − random, rates of their own (points, 95 % interval)", None, own.text))
        if shared is not None:
            rows.append(Row("searched − random, one rate a method (points, 95 % interval)", None, shared.text))
            summary += f"; at the rate of the first seed's subnet {shared.text}, which decides nothing"
        results = table(cells)
        for (task, method), values in results.items():
            if method in ("glora_searched", "glora_random", "glora_inherited"):
                rows.append(Row(f"{task}: {label(method)} (test %)", None, sum(values) / len(values)))
        found: list[Figures] = []
        for cell, figures in cells.items():
            if not cell.startswith("supernet"):
                continue
            for size, one in searches(figures).items():
                name = cell.removeprefix("supernet-").replace("-s", ", seed ") + (f", {size}" if size else "")
                best = one["search"]["validation_accuracy"]
                rows.append(Row(f"{name}: best on val200 with inherited weights (%)", None, best))
                found.append(one["search"])
        return Outcome(verdict, summary + _savings(found), (*rows, *_rows(found)))


def _share(found: Sequence[Figures], part: str, whole: str) -> float:
    """A sum over searches as a fraction of another."""
    return sum(one[part] for one in found) / sum(one[whole] for one in found)


def _savings(found: Sequence[Figures]) -> str:
    """What the searches saved, as the end of a sentence."""
    if not found:
        return ""
    asked = _share(found, "images", "images_of_plain_evaluation")
    return f"; {len(found)} searches asked {asked:.0%} of the images that plain evaluation asks"


def _rows(found: Sequence[Figures]) -> list[Row]:
    """The savings in figures."""
    if not found:
        return []
    plain = 1 / _share(found, "images", "images_of_plain_evaluation")
    return [
        Row("searches: images of plain evaluation / images asked", None, plain),
        Row("searches: candidates answered from earlier ones (%)", None, 100 * _share(found, "cached", "candidates")),
        Row("searches: candidates stopped early (%)", None, 100 * _share(found, "stopped", "candidates")),
        Row("searches: candidates each", None, sum(one["candidates"] for one in found) / len(found)),
    ]


class Balanced(SecondRow, VtabSearch):
    """The same with balanced steps."""

    id = "glora.vtab_search_balanced"
    claim = "With balanced steps, the subnet that evolution finds is better than a random subnet of the same size."
    short = "With balanced steps, evolution finds better subnets than chance does."
    rule = again(VtabSearch.rule)
    kind = "own"


CHECK = VtabSearch()
SECOND = Balanced()
