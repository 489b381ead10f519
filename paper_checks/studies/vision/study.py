"""The vision study behind the ``glora.vtab…`` checks: methods at one parameter budget on the same images and weights.

Protocol, the same for every method: learning rates are compared on val200 after training on train800 (one seed), over
a grid that is extended while its best rate lies at an end; the best one trains on train800val200 for each seed; test is
looked at once, at the end. A search sees val200 only. The head has one learning rate everywhere, so that the grid is
about adapters alone. Every cell is one training run or one search, so that a stretch of any length makes progress, and
every check of the study stores its cells below ``glora.vtab``, so that what two claims need is computed once.

The budget is what α-LoRA of rank 3 has on the 72 linear layers of a ViT-S: 248,832 + 41,472 = 290,304. LoRA of rank
3 and 4 in turn has exactly as much, GLoRA with all tensors low-rank of rank 1 has 290,376, and a uniform subnet of the
rank-4 supernet has 283 thousand on average.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paper_checks.core import COMMITTED, Check, Context, Figures, NotAvailable
from paper_checks.core.check import read_cell
from paper_checks.statistics.answers import pack
from paper_checks.statistics.rates import STEP, settle
from paper_checks.statistics.threads import one_thread
from paper_checks.studies import cost
from paper_checks.studies.vision.methods import WITHOUT, by_layer, configuration, parse, sized, suffix, without
from paper_checks.studies.vision.statistics import searched

STUDY = "glora.vtab"
BUDGET = 290_304
CORRUPTIONS = ("gaussian_noise", "gaussian_blur", "contrast", "jpeg", "pixelate")
SEVERITIES = (3, 5)
CORRUPTED = ("lora", "glora_searched")  #: methods whose tuned models are judged on corrupted images


@dataclass(frozen=True)
class Plan:
    """The sizes of one version of the study."""

    tasks: tuple[str, ...] = ("cifar10", "gtsrb")
    side: int = 56
    seeds: int = 3
    rates: tuple[float, ...] = (5e-5, 2e-4, 1e-3, 5e-3)
    beyond: float = STEP  #: ratio of rates beyond a grid, while its best lies at an end
    full_rates: tuple[float, ...] = (5e-6, 2e-5, 1e-4, 5e-4)  #: of full fine-tuning, which moves the pretrained weights
    head_rate: float = 2e-3  #: of the head, the same for all
    rate_epochs: int = 4
    epochs: int = 8
    supernet_epochs: int = 12
    supernet_rate: float = 1e-4  #: at 5e-4 and more the subnets disturb each other too much to learn in so few steps
    batch_size: int = 32
    generations: int = 7
    population: int = 24
    corrupted: int = 300  #: test images a corruption is measured on
    precision: str = "float32"
    budgets: tuple[int, ...] = (BUDGET,)
    target: str = "all-linear"  #: layers of LoRA, α-LoRA and fixed GLoRA; searched and random subnets take all
    extra: tuple[str, ...] = ()  #: methods of no free size that are trained as well
    steps: str = "raw"  #: of every adapter but LoRA's and α-LoRA's, see `glora.GLoRAConfig`; "raw" is the paper's


CPU = Plan()


@functools.lru_cache(maxsize=4)
def load_task(root: Path, name: str, side: int) -> Any:
    """The task ``name`` below the data folder; a process reads its images once."""
    from glora.tasks.vision.image_folder import Vtab

    return Vtab(folder=str(root / "data" / "vtab" / name), model=str(root / "models" / "vit-s14"), side=side)


class Study(Check):
    """A check that draws on the study's cells; subclasses say which, and judge them."""

    plan = CPU
    needs: Sequence[str] = (
        "data/vtab",
        "models/vit-s14",
        "PyTorch, transformers and Pillow",
        "about 2.5 h of two cores in all",
    )

    @property
    def home(self) -> str:
        """The study's folder, whichever of its checks computes a cell."""
        return STUDY

    def records(self, folder: Path = COMMITTED) -> dict[str, dict[str, Any]]:
        """Stored records of this check's cells, in their order; others of the study lie in the same folder."""
        paths = {cell: folder / self.home / f"{cell}.json" for cell in self.cells(Context(out=folder))}
        return {cell: read_cell(path) for cell, path in paths.items() if path.is_file()}

    def runs(self, methods: Sequence[str]) -> Iterator[str]:
        """Cells of final trainings with what they rest on, in order of value: one seed everywhere, then the next.

        A final training comes one method later than the learning rates it rests on, and a search comes first, so that
        cells that run side by side seldom wait for one another (which would compute a cell twice).
        """
        waiting: list[str] = []
        for seed in range(self.plan.seeds):
            for task in self.plan.tasks:
                if "glora_searched" in methods:
                    yield f"supernet-{task}-s{seed}"
                for method in (name for one in methods for name in sized(one, self.plan.budgets)):
                    if method != "probe" and seed == 0:
                        yield from (f"rate-{task}-{method}-{rate:g}" for rate in self._rates(method))
                    yield from waiting
                    waiting = [f"final-{task}-{method}-s{seed}"]
        yield from waiting

    def costs(self, methods: Sequence[str]) -> list[str]:
        """Cells that measure what each method costs; they come last, and no verdict needs them."""
        return [f"cost-{name}" for one in methods if one != "probe" for name in sized(one, self.plan.budgets)]

    # ------------------------------------------------------------------------------------------------------- cells

    def compute(self, context: Context, cell: str) -> Figures:
        kind, task, *rest = cell.split("-", 2)
        words = rest[0].split("-") if rest else []
        self._check_libraries()
        if context.quick:
            raise NotAvailable("a small version of this study says nothing; the demo has a section on digits instead")
        with one_thread():  # cells run side by side, one on each core
            return self.cell(context, kind, task, words)

    def cell(self, context: Context, kind: str, task: str, words: Sequence[str]) -> Figures:
        """The figures of the cell ``kind-task-words``; checks with kinds of their own add them here."""
        if kind == "supernet":
            return self._supernet(context, task, int(words[0][1:]))
        if kind == "rate":
            return self._rate(context, task, words[0], float("-".join(words[1:])))
        if kind == "cost":
            if parse(task, self.plan.budgets)[0] == "glora_searched":
                self.need(context, f"supernet-{self.plan.tasks[0]}-s0")
            return cost.measure(self, context, task, against=self.lora(task))
        return self._final(context, task, words[0], int(words[1][1:]))

    def lora(self, name: str) -> str:
        """LoRA at the budget of a method; at the first where it has a size of its own."""
        return sized("lora", self.plan.budgets)[self.plan.budgets.index(parse(name, self.plan.budgets)[1])]

    def subject(self, context: Context, method: str) -> cost.Subject:
        """What is trained with a method on the first task, for `paper_checks.studies.cost`."""
        task = self._task(context, self.plan.tasks[0])
        settings = self._settings(1, self.plan.rates[0], 0, "train", method)

        def adapt(model: Any) -> Any:
            self._adapt(context, task, model, method, 0)
            return model

        return cost.Subject(task, settings, adapt)

    def _check_libraries(self) -> None:
        try:
            import accelerate  # noqa: F401
            import PIL  # noqa: F401
            import sklearn  # noqa: F401
            import transformers  # noqa: F401
        except ImportError as error:
            raise NotAvailable(f"needs {error.name}; pip install 'rescale-and-adapt[hf,learn]'") from None

    def _task(self, context: Context, name: str) -> Any:
        context.folder("models", "vit-s14")
        return load_task(context.folder("data", "vtab", name).parents[2], name, self.plan.side)

    def _settings(self, epochs: float, rate: float, seed: int, split: str, method: str = "") -> Any:
        from glora.runs.settings import AlphaSettings, TrainingSettings

        # α-LoRA trains by the paper's Algorithm 1; elsewhere a vector A is one support tensor among five.
        alone = parse(method, self.plan.budgets)[0] == "alpha_lora"
        return TrainingSettings(
            epochs=epochs,
            batch_size=self.plan.batch_size,
            lr=rate,
            head_lr=self.plan.head_rate,
            weight_decay=1e-4,
            schedule="cosine",
            warmup=0.1,
            split=split,
            keep="last",
            seed=seed,
            precision=self.plan.precision,
            alpha=AlphaSettings() if alone else AlphaSettings(mode="joint", lr=rate),
        )

    def _tune(
        self, context: Context, task: Any, method: str, epochs: float, rate: float, seed: int, split: str
    ) -> tuple[Any, Figures]:
        """Train one method on one split: the model and what the training took."""
        from glora.training.loop import train

        model = task.build_model(seed)
        settings = self._settings(epochs, rate, seed, split, method)
        settings = replace(settings, batch_size=min(settings.batch_size, task.size(split)))
        parameters = self._adapt(context, task, model, method, seed)
        self._measure_steps(task, model, settings, method)
        start = time.perf_counter()
        done = train(model, task, settings)
        return model, {
            "parameters": parameters,
            "lr": rate,
            "steps": done.steps,
            "seconds_a_step": (time.perf_counter() - start) / done.steps,
        }

    def _adapt(self, context: Context, task: Any, model: Any, method: str, seed: int) -> int:
        """Put a method onto a model; how many parameters it trains besides the head."""
        import torch

        import glora

        if method == "full":
            model.requires_grad_(True)
            return sum(p.numel() for p in model.backbone.parameters())
        config = self._config(context, task, method, seed)
        return glora.attach(model, config, generator=torch.Generator().manual_seed(seed)).adapter_parameters

    def _measure_steps(self, task: Any, model: Any, settings: Any, method: str) -> None:
        """As `glora tune` does: on the first training batch, for adapters whose configuration says so."""
        import glora
        from glora.training.loop import first_batch

        if self.plan.steps == "balanced" and parse(method, self.plan.budgets)[0] not in ("lora", "alpha_lora", "full"):
            glora.balance(model, first_batch(model, task, settings), forward=task.loss)

    def _config(self, context: Context, task: Any, name: str, seed: int) -> Any:
        """Each method as a layer configuration, at its budget where it has a free size."""
        import glora

        name, _, dropped = name.partition(WITHOUT)
        method, budget = parse(name, self.plan.budgets)
        if method != "glora_searched":
            return configuration(
                method,
                budget,
                lambda: task.build_model(0),
                task.heads,
                target=self.plan.target,
                seed=seed,
                steps="raw" if method in ("lora", "alpha_lora") else self.plan.steps,
            )
        found = self.need(context, f"supernet-{Path(task.folder).name}-s{seed}")
        config = glora.GLoRAConfig.from_dict(searched(found, name)["config"])
        return without(config, dropped) if dropped else config

    def _rate(self, context: Context, name: str, method: str, rate: float) -> Figures:
        task = self._task(context, name)
        model, figures = self._tune(context, task, method, self.plan.rate_epochs, rate, 0, "train")
        return {**figures, "validation": task.metrics(model, "validation")["accuracy"]}

    def _rates(self, method: str) -> tuple[float, ...]:
        return self.plan.full_rates if method == "full" else self.plan.rates

    def _best_rate(self, context: Context, name: str, method: str) -> float:
        """The learning rate with the best validation accuracy, see `paper_checks.statistics.rates`."""
        return settle(
            self._rates(method),
            lambda rate: self.need(context, f"rate-{name}-{method}-{rate:g}")["validation"],
            self.plan.beyond,
        )

    def _final(self, context: Context, name: str, method: str, seed: int) -> Figures:
        import glora

        task = self._task(context, name)
        if method == "probe":
            return self._probe(task, "train+validation", "test", seed)
        rate = self._best_rate(context, name, method)
        model, figures = self._tune(context, task, method, self.plan.epochs, rate, seed, "train+validation")
        plain = model if method == "full" else glora.merged_copy(model)
        if parse(method, self.plan.budgets)[0] in CORRUPTED:
            figures["corruptions"] = self._corruptions(task, plain)
        return {**figures, **answers(task, plain, "test")}

    def _probe(self, task: Any, train: str, judged: str, seed: int) -> Figures:
        """Logistic regression on the frozen features; C is chosen on validation, as the others' rates are."""
        import torch
        from sklearn.linear_model import LogisticRegression

        model = task.build_model(seed).eval()

        def features(split: str) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
            with torch.no_grad():
                parts = [(model.features(x).numpy(), y.numpy()) for x, y in task.images(split).batches(100)]
            return np.concatenate([x for x, _ in parts]).astype(float), np.concatenate([y for _, y in parts])

        (x, y), (xv, yv) = features("train"), features("validation")
        mean, spread = x.mean(axis=0), x.std(axis=0) + 1e-6

        def fitted(c: float, x: NDArray[np.float64], y: NDArray[np.int64]) -> Any:
            return LogisticRegression(C=c, max_iter=2000).fit((x - mean) / spread, y)

        grid = (1e-3, 1e-2, 1e-1, 1.0)
        best = max(grid, key=lambda c: (fitted(c, x, y).score((xv - mean) / spread, yv), -c))
        final = fitted(best, *features(train))
        xt, yt = features(judged)
        right = final.predict((xt - mean) / spread) == yt
        return {"parameters": 0, "C": best, "accuracy": 100 * float(right.mean()), "right": pack(right)}

    def _corruptions(self, task: Any, model: Any) -> dict[str, str]:
        """The answers on a part of test, as it is and under each corruption."""
        few = replace(task, test_limit=self.plan.corrupted)
        splits = {"clean": "test"}
        splits |= {f"{kind}-{severity}": f"test:{kind}:{severity}" for kind in CORRUPTIONS for severity in SEVERITIES}
        return {name: answers(few, model, split)["right"] for name, split in splits.items()}

    def _train_supernet(self, task: Any, rate: float, seed: int, epochs: int) -> tuple[Any, Any]:
        """A supernet trained on train800, and what the training took."""
        import torch

        import glora
        from glora.search.supernet_task import SuperNetTask
        from glora.training.loop import train

        model = task.build_model(seed)
        generator = torch.Generator().manual_seed(seed)
        supernet = glora.SuperNet(model, 4, modules_to_save=task.heads, generator=generator, steps=self.plan.steps)
        wrapped: Any = SuperNetTask(task, supernet, seed=seed)
        settings = self._settings(epochs, rate, seed, "train")
        self._measure_steps(task, model, settings, "supernet")
        return supernet, train(model, wrapped, settings, before_step=wrapped.before_step)

    def _best_supernet_rate(self, context: Context, name: str) -> float:
        return self.plan.supernet_rate

    def _supernet(self, context: Context, name: str, seed: int) -> Figures:
        """Train a supernet on train800, search it on val200, and see what inherited weights do on test."""
        from glora.engines.evolution import Evolution
        from glora.engines.space import Budget
        from glora.search.log import genome_text
        from glora.search.loop import search

        task = self._task(context, name)
        rate = self._best_supernet_rate(context, name)
        supernet, done = self._train_supernet(task, rate, seed, self.plan.supernet_epochs)
        model = supernet.model
        results = {}
        for budget in self.plan.budgets:
            engine = Evolution(
                supernet.space,
                Budget.around(budget),
                seed=seed,
                generations=self.plan.generations,
                population=self.plan.population,
                parents=10,
                mutations=self.plan.population // 2,
                crossovers=self.plan.population // 2,
            )
            # Small batches stop a hopeless candidate sooner; what is selected is what plain evaluation by tens selects.
            found = search(supernet, task, engine, batch_size=10)
            genome = found.best.genome
            with supernet.merged(genome):
                inherited = answers(task, model, "test")
            results[suffix(budget)] = {
                "config": supernet.config(genome).to_dict(),
                "genome": genome_text(genome),
                "search": found.summary(),
                "training_seconds": done.seconds,
                "inherited": inherited,
                "layers": by_layer(supernet.space, genome, budget),
            }
        return results if len(results) > 1 else results.popitem()[1]


def answers(task: Any, model: Any, split: str) -> Figures:
    """Accuracy in percent, and each image's answer for paired comparisons."""
    import torch

    from glora.tasks.base import batches, device_of, to_device

    model.eval()
    with torch.no_grad():
        right = [
            task.correct(model, to_device(batch, device_of(model))).cpu().numpy() for batch in batches(task, split, 100)
        ]
    bits = np.concatenate(right)
    return {"accuracy": 100 * float(bits.mean()), "right": pack(bits)}
