"""The vision study behind the ``glora.vtab…`` checks: methods at one parameter budget on the same images and weights.

Protocol, the same for every method: learning rates are compared on val200 after training on train800 (one seed); the
best one trains on train800val200 for each seed; test is looked at once, at the end. A search sees val200 only. The
head has one learning rate everywhere, so that the grid is about adapters alone. Every cell is one training run or one
search, so that a stretch of any length makes progress, and every check of the study stores its cells below
``glora.vtab``, so that what two claims need is computed once.

The budget is what α-LoRA of rank 3 has on the 72 linear layers of a ViT-S: 248,832 + 41,472 = 290,304. LoRA of rank
3 and 4 in turn has exactly as much, GLoRA with all tensors low-rank of rank 1 has 290,376, and a uniform subnet of the
rank-4 supernet has 283 thousand on average.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paper_checks.core import COMMITTED, Check, Context, Figures, NotAvailable
from paper_checks.glora.vtab_statistics import pack
from rmt.storage import read_json

STUDY = "glora.vtab"
BUDGET = 290_304
TUNED = ("lora", "alpha_lora", "glora_fixed", "glora_random", "glora_searched")
EXTRA = ("bitfit", "ssf", "full")
CORRUPTIONS = ("gaussian_noise", "gaussian_blur", "contrast", "jpeg", "pixelate")
SEVERITIES = (3, 5)
SHOTS = (1, 2, 4, 8, 16)
FEW_SHOT = ("probe", "lora", "glora_searched")

#: Layer names of a transformers ViT or Dinov2 that belong to a block's attention; all other adapted layers are MLP.
ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")


@dataclass(frozen=True)
class Plan:
    """The sizes of one version of the study."""

    tasks: tuple[str, ...] = ("cifar10", "gtsrb")
    side: int = 56
    seeds: int = 3
    rates: tuple[float, ...] = (5e-5, 2e-4, 1e-3, 5e-3)
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


CPU = Plan()


@functools.lru_cache(maxsize=4)
def load_task(root: Path, name: str, side: int) -> Any:
    """The task ``name`` below the data folder; a process reads its images once."""
    from glora.tasks.vtab import Vtab

    return Vtab(folder=str(root / "data" / "vtab" / name), model=str(root / "models" / "vit-s14"), side=side)


class Study(Check):
    """A check that draws on the study's cells; subclasses say which, and judge them."""

    plan = CPU
    study = STUDY  #: the folder of its cells
    needs: Sequence[str] = ("data/vtab", "models/vit-s14", "PyTorch, transformers and Pillow", "about 2.5 h in all")

    def _path(self, context: Context, cell: str) -> Path:
        return context.out / self.study / f"{cell}.json"

    def records(self, folder: Path = COMMITTED) -> dict[str, dict[str, Any]]:
        """Stored records of this check's cells, in their order; others of the study lie in the same folder."""
        paths = {cell: folder / self.study / f"{cell}.json" for cell in self.cells(Context(out=folder))}
        return {cell: read_json(path) for cell, path in paths.items() if path.is_file()}

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
                for method in methods:
                    if method != "probe" and seed == 0:
                        yield from (f"rate-{task}-{method}-{rate:g}" for rate in self._rates(method))
                    yield from waiting
                    waiting = [f"final-{task}-{method}-s{seed}"]
        yield from waiting

    # ------------------------------------------------------------------------------------------------------- cells

    def compute(self, context: Context, cell: str) -> Figures:
        kind, task, *rest = cell.split("-", 2)
        rest = rest[0].split("-") if rest else []
        self._check_libraries()
        if context.quick:
            raise NotAvailable("a small version of this study says nothing; the demo has a section on digits instead")
        with _one_thread():
            if kind == "latency":
                return self._latency(context)
            if kind == "supernet":
                return self._supernet(context, task, int(rest[0][1:]))
            if kind == "rate":
                return self._rate(context, task, rest[0], float("-".join(rest[1:])))
            if kind == "final":
                return self._final(context, task, rest[0], int(rest[1][1:]))
            return self._few_shot(context, task, rest[0], int(rest[1][1:]), int(rest[2][1:]))

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

    def _need(self, context: Context, cell: str) -> Figures:
        """The figures of a cell that this one rests on, computed first if they are not there."""
        if not self._stored(context, cell):
            reason = self._save_cell(context, cell)
            if reason is not None:
                raise NotAvailable(reason)
        return read_json(self._path(context, cell))["figures"]

    def _settings(self, epochs: float, rate: float, seed: int, split: str) -> Any:
        from glora.settings import AlphaSettings, TrainingSettings

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
            alpha=AlphaSettings(mode="joint", lr=rate),
        )

    def _tune(
        self, context: Context, task: Any, method: str, epochs: float, rate: float, seed: int, split: str
    ) -> tuple[Any, Figures]:
        """Train one method on one split: the model and what the training took."""
        import torch

        import glora
        from glora.settings import AlphaSettings
        from glora.training import train

        model = task.build_model(seed)
        settings = self._settings(epochs, rate, seed, split)
        settings = replace(settings, batch_size=min(settings.batch_size, task.size(split)))
        if method == "full":
            model.requires_grad_(True)
            parameters = sum(p.numel() for p in model.backbone.parameters())
        else:
            config = self._config(context, task, method, seed)
            report = glora.attach(model, config, generator=torch.Generator().manual_seed(seed))
            parameters = report.adapter_parameters
        if method == "alpha_lora":
            settings = replace(settings, alpha=AlphaSettings())  # the paper's Algorithm 1
        start = time.perf_counter()
        done = train(model, task, settings)
        return model, {
            "parameters": parameters,
            "lr": rate,
            "steps": done.steps,
            "seconds_a_step": (time.perf_counter() - start) / done.steps,
            "peak_memory_mib": _peak_memory(),
        }

    def _config(self, context: Context, task: Any, method: str, seed: int) -> Any:
        """Each method as a layer configuration, at the same budget where it has a free size."""
        import glora
        from glora.engines import random_subnet
        from glora.space import Budget, SearchSpace

        heads: dict[str, Any] = {"modules_to_save": list(task.heads)}
        if method == "lora":
            even = {r"\.\d*[02468]\.": glora.LayerConfig(B="lora", rank=3)}
            return glora.GLoRAConfig(B="lora", rank=4, overrides=even, **heads)
        if method == "alpha_lora":
            return glora.presets.alpha_lora(rank=3, **heads)
        if method == "glora_fixed":
            return glora.presets.glora(rank=1, **heads)
        if method in ("bitfit", "ssf"):
            return getattr(glora.presets, method)(**heads)
        if method == "glora_random":
            space = SearchSpace.of(task.build_model(0), 4, modules_to_save=task.heads)
            rng = np.random.default_rng([1, seed])
            return space.config(random_subnet(space, Budget.around(BUDGET), rng), task.heads)
        name = Path(task.folder).name
        return glora.GLoRAConfig.from_dict(self._need(context, f"supernet-{name}-s{seed}")["config"])

    def _rate(self, context: Context, name: str, method: str, rate: float) -> Figures:
        task = self._task(context, name)
        model, figures = self._tune(context, task, method, self.plan.rate_epochs, rate, 0, "train")
        return {**figures, "validation": task.metrics(model, "validation")["accuracy"]}

    def _rates(self, method: str) -> tuple[float, ...]:
        return self.plan.full_rates if method == "full" else self.plan.rates

    def _best_rate(self, context: Context, name: str, method: str) -> float:
        """The learning rate with the best validation accuracy, the smaller one of equals."""
        cells = {rate: f"rate-{name}-{method}-{rate:g}" for rate in self._rates(method)}
        scores = {rate: self._need(context, cell)["validation"] for rate, cell in cells.items()}
        return max(scores, key=lambda rate: (scores[rate], -rate))

    def _final(self, context: Context, name: str, method: str, seed: int) -> Figures:
        import glora

        task = self._task(context, name)
        if method == "probe":
            return self._probe(task, "train+validation", "test", seed)
        rate = self._best_rate(context, name, method)
        model, figures = self._tune(context, task, method, self.plan.epochs, rate, seed, "train+validation")
        plain = model if method == "full" else glora.merged_copy(model)
        figures["corruptions"] = self._corruptions(task, plain) if seed == 0 else {}
        return {**figures, **_answers(task, plain, "test")}

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

    def _corruptions(self, task: Any, model: Any) -> dict[str, float]:
        few = replace(task, test_limit=self.plan.corrupted)
        found = {"clean": few.metrics(model, "test")["accuracy"]}
        for kind in CORRUPTIONS:
            for severity in SEVERITIES:
                found[f"{kind}-{severity}"] = few.metrics(model, f"test:{kind}:{severity}")["accuracy"]
        return found

    def _supernet(self, context: Context, name: str, seed: int) -> Figures:
        """Train a supernet on train800, search it on val200, and see what inherited weights do on test."""
        import torch

        import glora
        from glora.engines import Evolution
        from glora.search import SuperNetTask, genome_text, search
        from glora.space import Budget
        from glora.training import train

        task = self._task(context, name)
        model = task.build_model(seed)
        generator = torch.Generator().manual_seed(seed)
        supernet = glora.SuperNet(model, 4, modules_to_save=task.heads, generator=generator)
        wrapped: Any = SuperNetTask(task, supernet, seed=seed)
        settings = self._settings(self.plan.supernet_epochs, self.plan.supernet_rate, seed, "train")
        done = train(model, wrapped, settings, before_step=wrapped.before_step)
        engine = Evolution(
            supernet.space,
            Budget.around(BUDGET),
            seed=seed,
            generations=self.plan.generations,
            population=self.plan.population,
            parents=10,
            mutations=self.plan.population // 2,
            crossovers=self.plan.population // 2,
        )
        found = search(supernet, task, engine)
        genome = found.best.genome
        with supernet.merged(genome):
            inherited = _answers(task, model, "test")
        return {
            "config": supernet.config(genome).to_dict(),
            "genome": genome_text(genome),
            "search": found.summary(),
            "training_seconds": done.seconds,
            "inherited": inherited,
            "layers": _by_layer(supernet.space, genome),
        }

    def _few_shot(self, context: Context, name: str, method: str, shots: int, seed: int) -> Figures:
        """So many images a class, drawn by the seed; the learning rate is that of the full training set."""
        task = self._task(context, name).few(shots, seed)
        if method == "probe":
            return self._probe(task, "train", "test", seed)
        rate = self._best_rate(context, name, method)
        # As many steps as 200 images a class would need in an epoch or two, whatever the shots.
        epochs = max(4, 100 * self.plan.batch_size // task.size("train"))
        model, figures = self._tune(context, task, method, epochs, rate, seed, "train")
        return {**figures, **_answers(task, model, "test")}

    def _latency(self, context: Context) -> Figures:
        """Seconds a batch of 8 images: the base model, GLoRA in the layers, GLoRA merged; interleaved."""
        import torch

        import glora

        task = self._task(context, self.plan.tasks[0])
        batch = task.batch("validation", range(8))["pixel_values"]
        base, tuned = task.build_model(0).eval(), task.build_model(0).eval()
        glora.attach(tuned, self._config(context, task, "glora_random", 0))
        merged = glora.merged_copy(tuned).eval()
        seconds: dict[str, list[float]] = {"base": [], "unmerged": [], "merged": []}
        with torch.no_grad():
            for _ in range(41):
                for name, model in zip(seconds, (base, tuned, merged), strict=True):
                    start = time.perf_counter()
                    model(batch)
                    seconds[name].append(time.perf_counter() - start)
        ratios = {name: np.array(seconds[name][1:]) / np.array(seconds["base"][1:]) for name in ("unmerged", "merged")}
        return {
            "seconds": {name: float(np.median(values[1:])) for name, values in seconds.items()},
            "ratio": {name: float(np.median(values)) for name, values in ratios.items()},
            "error": {name: float(1.2533 * values.std() / np.sqrt(len(values))) for name, values in ratios.items()},
        }


@contextmanager
def _one_thread() -> Iterator[None]:
    """Cells run side by side, one on each core, and sums do not depend on the number of cores."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _answers(task: Any, model: Any, split: str) -> Figures:
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


def _by_layer(space: Any, genome: Any) -> dict[str, Any]:
    """Parameters a layer type (attention or MLP) received, and what random subnets of the budget give it."""
    from glora.engines import random_subnet
    from glora.space import Budget

    mlp = np.array([not layer.name.endswith(ATTENTION) for layer in space.layers])
    rng = np.random.default_rng(0)
    draws = [random_subnet(space, Budget.around(BUDGET), rng) for _ in range(400)]
    shares = [mlp_share(space.gene_costs(draw).sum(axis=1), mlp) for draw in draws]
    costs = space.gene_costs(genome)
    return {
        "mlp_share": mlp_share(costs.sum(axis=1), mlp),
        "random_mlp_share": float(np.mean(shares)),
        "random_spread": float(np.std(shares)),
        "by_tensor": {t: int(count) for t, count in zip("ABCDE", costs.sum(axis=0), strict=True)},
    }


def mlp_share(parameters: NDArray[np.int64], mlp: NDArray[np.bool_]) -> float:
    """Part of a subnet's parameters that lies in MLP layers."""
    return float(parameters[mlp].sum() / max(1, parameters.sum()))


def _peak_memory() -> float:
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
