"""The vision study a second time, with balanced steps, behind the checks that judge claims by it.

The protocol is that of `paper_checks.studies.vision.study`, with these differences. Adapters but LoRA's have steps
measured on the first training batch (`glora.layer.steps`). Grids have factors of 2 to 2.5, also beyond their ends. The
supernet's rate is chosen on val200 as the methods' are, after a short training, by the mean over 20 random subnets of
the budget. LoRA's steps are raw, so that its runs are those of the first study wherever the rate is the same; they are
taken from there and trained again only where this finer grid chooses another rate.

Cells are in the order of their value, so that a study stopped anywhere can be judged: LoRA's grid; what the rule of
the steps leaves open, on validation alone; fixed GLoRA against LoRA; searched GLoRA, seed by seed; every structure's
grid; two more seeds, and random subnets; a third task that nobody tuned on, with the rates of the other two.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from paper_checks.core import COMMITTED, Context, Figures, Outcome, Verdict
from paper_checks.statistics.rates import settle
from paper_checks.studies.vision.study import STUDY, Plan, Study
from rmt._files import read_json

BALANCED = Plan(rates=(1e-3, 2e-3, 5e-3), beyond=2.0, seeds=5, steps="balanced")
SUPERNET_RATES = (4e-4, 1e-3, 2.5e-3)
FIRST = 3  #: seeds that come before the one-rate table; the others follow it
UNSEEN = "dtd10"  #: the task that is run once, at the end
#: The structures whose best rates are compared with LoRA's.
ONE_RATE = ("lora", "glora_fixed", "glora_searched", "hira", "ssf", "alpha_joint", "bitfit", "vector_b")
#: Choices that the rule of the steps leaves open: the method they change, and at which rate both are compared.
DESIGN = {
    "datafree": ("glora_fixed", 2e-3),  #: steps from the weights alone
    "rootk": ("glora_fixed", 2e-3),  #: steps over √k, k tensors in the layer
    "rank64": ("lora", 2e-3),  #: B of rank 64 with its step √(4/64)
    "rank64raw": ("lora", 2e-3),  #: the same with a step of 1: `lora_scale` = 1
}


class BalancedStudy(Study):
    """A check that draws on the balanced study's cells."""

    plan = BALANCED

    @property
    def home(self) -> str:
        """A folder of its own: another study."""
        return "glora.vtab_balanced"

    def order(self) -> Iterator[str]:
        """All cells of the study in the order of their value."""
        tasks = self.plan.tasks

        def rates(method: str) -> Iterator[str]:
            for task in tasks:
                yield from (f"rate-{task}-{method}-{rate:g}" for rate in self.plan.rates)
                yield f"best-{task}-{method}"

        def finals(methods: Sequence[str], seeds: Sequence[int]) -> Iterator[str]:
            yield from (f"final-{task}-{method}-s{seed}" for seed in seeds for task in tasks for method in methods)

        yield from rates("lora")
        yield from rates("glora_fixed")
        yield from (f"design-{task}-{variant}" for variant in DESIGN for task in tasks)
        yield from finals(("lora", "glora_fixed"), range(FIRST))
        yield from (f"suprate-{task}-{rate:g}" for task in tasks for rate in SUPERNET_RATES)
        for seed in range(FIRST):
            yield from (f"supernet-{task}-s{seed}" for task in tasks)
            yield from rates("glora_searched")
            yield from finals(("glora_searched",), [seed])
        for method in ONE_RATE:
            yield from rates(method)
        for seed in range(FIRST, self.plan.seeds):
            yield from (f"supernet-{task}-s{seed}" for task in tasks)
            yield from finals(("lora", "glora_searched", "glora_fixed"), [seed])
        yield from rates("glora_random")
        yield from finals(("glora_random",), range(self.plan.seeds))
        for seed in range(FIRST):
            yield f"supernet-{UNSEEN}-s{seed}"
            yield from (f"final-{UNSEEN}-{method}-s{seed}" for method in ("probe", *ONE_RATE))

    def cell(self, context: Context, kind: str, task: str, words: Sequence[str]) -> Figures:
        """See `Study.cell`; LoRA's come from the first study where they are the same."""
        if kind == "suprate":
            return self._supernet_rate(context, task, float("-".join(words)))
        if kind == "design":
            return self._design(context, task, words[0])
        if kind == "best":
            return self._best(context, task, words[0])
        if kind in ("rate", "final", "few") and words[0] in ("lora", "probe"):
            found = self._borrowed(context, "-".join([kind, task, *words]))
            free = kind == "rate" or words[0] == "probe"
            if found is not None and (free or found["lr"] == self._best_rate(context, task, "lora")):
                return {**found, "computed_by": STUDY}
        return super().cell(context, kind, task, words)

    def _best(self, context: Context, task: str, method: str) -> Figures:
        """The grid as far as it was extended, and the rate that it chooses."""
        asked: dict[str, float] = {}

        def score(rate: float) -> float:
            asked[f"{rate:g}"] = self.need(context, f"rate-{task}-{method}-{rate:g}")["validation"]
            return asked[f"{rate:g}"]

        return {"lr": settle(self.plan.rates, score, self.plan.beyond), "validation": asked}

    def _borrowed(self, context: Context, cell: str) -> Figures | None:
        path = context.out / STUDY / f"{cell}.json"
        return read_json(path)["figures"] if path.is_file() else None

    def _design(self, context: Context, name: str, variant: str) -> Figures:
        """Validation accuracy of a choice that was not taken, as `_rate`'s cells have it of those that were."""
        from glora.training.loop import train

        task = self._task(context, name)
        method, rate = DESIGN[variant]
        model = task.build_model(0)
        settings = self._settings(self.plan.rate_epochs, rate, 0, "train", method)
        parameters = self._adapt_variant(task, model, settings, variant)
        done = train(model, task, settings)
        validation = task.metrics(model, "validation")["accuracy"]
        return {"parameters": parameters, "lr": rate, "steps": done.steps, "validation": validation}

    def _adapt_variant(self, task: Any, model: Any, settings: Any, variant: str) -> int:
        import torch

        import glora
        from glora.layer import steps
        from glora.model.balancing import places_of
        from paper_checks.studies.vision.methods import configuration

        if variant.startswith("rank64"):
            kind = "raw" if variant.endswith("raw") else "balanced"
            config = glora.GLoRAConfig(B="lora", rank=64, modules_to_save=tuple(task.heads), steps=kind)
        else:
            kind = "data-free" if variant == "datafree" else "balanced"
            budget = self.plan.budgets[0]
            config = configuration("glora_fixed", budget, lambda: task.build_model(0), task.heads, steps=kind)
        report = glora.attach(model, config, generator=torch.Generator().manual_seed(0))
        if kind == "balanced":
            self._measure_steps(task, model, settings, "glora_fixed")
        if variant == "rootk":
            seen: set[int] = set()
            for place in places_of(model, "default"):
                found = place.adapter.steps
                steps.apply(place.adapter, place.base, {k: v / len(found) ** 0.5 for k, v in found.items()}, seen)
        return report.adapter_parameters

    def _best_rate(self, context: Context, name: str, method: str) -> float:
        """Of a task that nobody tuned on: the rate that is best on the others, by the mean of their accuracies."""
        if name != UNSEEN:
            return super()._best_rate(context, name, method)
        cells = [f"rate-{task}-{method}" for task in self.plan.tasks]
        return settle(
            self.plan.rates,
            lambda rate: sum(self.need(context, f"{cell}-{rate:g}")["validation"] for cell in cells),
            self.plan.beyond,
        )

    def _best_supernet_rate(self, context: Context, name: str) -> float:
        tasks = self.plan.tasks if name == UNSEEN else (name,)
        return settle(
            SUPERNET_RATES,
            lambda one: sum(self.need(context, f"suprate-{task}-{one:g}")["validation"] for task in tasks),
            self.plan.beyond,
        )

    def _supernet_rate(self, context: Context, name: str, rate: float) -> Figures:
        """How well a supernet does on val200 after a training as short as a method's: the mean over 20 subnets."""
        from glora.engines.random import random_subnet
        from glora.engines.space import Budget

        task = self._task(context, name)
        supernet, done = self._train_supernet(task, rate, 0, self.plan.rate_epochs)
        rng, found = np.random.default_rng(2), []
        for _ in range(20):
            with supernet.merged(random_subnet(supernet.space, Budget.around(self.plan.budgets[0]), rng)):
                found.append(task.metrics(supernet.model, "validation")["accuracy"])
        return {"lr": rate, "validation": float(np.mean(found)), "best": max(found), "steps": done.steps}

    def judged(self, cells: Mapping[str, Figures]) -> tuple[dict[str, Figures], list[str]]:
        """The cells of the two tasks that the verdict is about, and what is missing of the first seeds' runs."""
        here = {cell: figures for cell, figures in cells.items() if cell.split("-")[1] in self.plan.tasks}
        wanted = [
            f"final-{task}-{method}-s{seed}"
            for seed in range(FIRST)
            for task in self.plan.tasks
            for method in ("lora", "glora_searched")
        ]
        return here, [cell for cell in wanted if cell not in cells]


class SecondRow(BalancedStudy):
    """A claim of the first study again: the same rule on the balanced study's cells, on its first seeds.

    Before the class of the claim among the bases, whose rule this one completes.
    """

    plan = replace(BALANCED, seeds=FIRST)
    kind: str  #: of the cells that the verdict rests on

    def judge(self, cells: Mapping[str, Figures]) -> Outcome:
        outcome: Outcome = super().judge(cells)  # type: ignore[safe-super]
        wanted = [cell for cell in self.cells(Context(out=COMMITTED)) if cell.startswith(f"{self.kind}-")]
        missing = [cell for cell in wanted if cell not in cells]
        if not missing:
            return outcome
        summary = f"{outcome.summary}; {len(missing)} of {len(wanted)} runs are missing, from {missing[0]} on"
        return replace(outcome, verdict=Verdict.UNDECIDED, summary=summary)


def again(rule: str) -> str:
    """The rule of a second row."""
    return f"{rule} GLoRA has balanced steps here, LoRA raw ones; three seeds, and undecided while a run is missing."
