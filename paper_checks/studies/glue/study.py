"""One cell of the GLUE study: a method trained on a task, by one rule for all methods.

Every method chooses its learning rate by the loss on a validation part cut from the training examples, from a grid
that is extended alike for all (`paper_checks.statistics.rates`); the development set is seen once, by the final runs,
which train on all training examples. All runs of a task send the same number of examples forward and backward, those
of α included. With one seed all methods start from the same head and, but for the examples that Algorithm 1 sets apart
for α, see the same examples in the same order.

No criterion of the choice is above doubt: a few hundred examples tell accuracies apart to three points only, and the
loss prefers rates that are too small for the best accuracy. So the two methods of the claim make final runs at *every*
rate of the grid, the same for both (`Study.curve`), and the noise of the choice becomes a part of the interval
(`paper_checks.statistics.paired.over_choices`). Cells named ``….accuracy.seed…`` are of an earlier rule, which made
the final runs with the rate that the accuracy chose; they count where they have a rate of the curve.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from paper_checks.core import Context, Figures, NotAvailable
from paper_checks.statistics.answers import bits
from paper_checks.statistics.threads import one_thread

QUERY_VALUE = r"(query|value)$"
ADAPTER_RATES = (5e-4, 2e-3, 8e-3)


@dataclass(frozen=True)
class Method:
    """A row of the study.

    Args:
        name, options: as in the ``[method]`` section of a run; a name of PEFT's begins with "peft:".
        rates: the learning rates to choose from; of a single one no run is spent on the choice.
        alpha: as in ``[training.alpha]``; the rate of α-LoRA's α is the paper's own, in other methods a vector A is one
            support tensor among five and has the rate of the others.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    rates: tuple[float, ...] = ADAPTER_RATES
    alpha: Mapping[str, Any] = field(default_factory=dict)


_LORA = {"rank": 8, "target": QUERY_VALUE}
METHODS = {
    "lora": Method("lora", _LORA),
    "alpha_scheduled": Method("alpha_lora", _LORA),
    "alpha_joint": Method("alpha_lora", _LORA, alpha={"mode": "joint"}),
    "alpha_scalar": Method("alpha_lora", {**_LORA, "share": "matrix"}),
    "lora_recipe": Method("lora", _LORA, rates=(1e-4,)),
    "alpha_recipe": Method("alpha_lora", _LORA, rates=(1e-4,), alpha={"source": "overlap", "counted": False}),
    "linear_probe": Method("linear_probe", rates=(3e-3, 1e-2, 3e-2)),
    "glora": Method(
        "custom", {**_LORA, "A": "vector", "B": "lora", "E": "vector", "steps": "raw"}, alpha={"mode": "joint"}
    ),
    "glora_balanced": Method(
        "custom", {**_LORA, "A": "vector", "B": "lora", "E": "vector", "steps": "balanced"}, alpha={"mode": "joint"}
    ),
    "glora_fixed": Method("glora", {**_LORA, "steps": "raw"}),
    "lora_all": Method("lora", {"rank": 4, "target": "all-linear"}),
    "glora_all": Method("glora", {"rank": 1, "target": "all-linear", "steps": "balanced"}),
    "bitfit": Method("bitfit", {"steps": "raw"}),
    "ia3": Method("peft:IA3Config", rates=(2e-3, 8e-3, 3e-2)),
    "dora": Method("peft:LoraConfig", {"r": 8, "lora_alpha": 8, "use_dora": True}),
    "rslora": Method("lora", {**_LORA, "numerator": 8.0, "rank_stabilized": True}),
    "hira": Method("custom", {**_LORA, "A": "lora", "B": "none", "steps": "raw"}),
    "full": Method("full", rates=(2e-5, 5e-5, 2e-4)),
}

#: a and b of "α replaced by aα + b" (paper Fig. 5): along both axes, and the best point of the paper's grid.
AFFINE = (
    *((a, 0.0) for a in (0.0, 0.5, 0.667, 1.0, 1.333)),
    *((1.0, b) for b in (-0.667, -0.333, -0.167, 0.167, 0.333, 0.667)),
    (0.667, 0.167),
)


@dataclass(frozen=True)
class Study:
    """The size of a study.

    Args:
        tasks: GLUE task and how many training examples (None: all).
        methods: names in `METHODS`, in the order of their value.
        seeds: final runs of a method.
        curve_seeds: final runs of each method of the claim at each rate of the grid.
        epochs, batch_size, max_length: the same for all.
        model: folder below ``models/``.
        device: see `glora.runs.settings.TrainingSettings`.
    """

    tasks: Mapping[str, int | None]
    methods: tuple[str, ...]
    seeds: int = 3
    curve_seeds: int = 5
    epochs: float = 3.0
    batch_size: int = 16
    max_length: int = 128
    model: str = "minilm-l6"
    device: str = "cpu"

    def rates(self, task: str, method: str) -> list[str]:
        """Cells that choose a learning rate; none if there is no choice."""
        rates = METHODS[method].rates
        return [f"{task}.{method}.rate{rate:g}" for rate in rates] if len(rates) > 1 else []

    def finals(self, task: str, method: str) -> list[str]:
        """Cells that see the development set, with the learning rate that the loss chose."""
        return [f"{task}.{method}.seed{seed}" for seed in range(self.seeds)]

    def curve(self, task: str, method: str, seed: int) -> list[str]:
        """Cells that see the development set at each rate of the grid, the middle one first; none without a choice."""
        rates = METHODS[method].rates
        middle = len(rates) // 2
        order = sorted(range(len(rates)), key=lambda place: (abs(place - middle), place))
        return [f"{task}.{method}.at{rates[i]:g}.seed{seed}" for i in order] if len(rates) > 1 else []

    def costs(self) -> list[str]:
        """Cells that measure what each method costs; no verdict needs them."""
        return [f"cost.{task}.{method}" for task in self.tasks for method in self.methods]

    def cells(self) -> list[str]:
        """All cells a verdict needs: the two methods of the claim on every task, seed by seed, then the others."""
        pair, others = self.methods[:2], self.methods[2:]
        found: list[str] = []
        for task in self.tasks:
            found += [cell for method in pair for cell in self.rates(task, method)]
            found += [self.finals(task, method)[seed] for seed in range(self.seeds) for method in pair]
        for task in self.tasks:
            found += [c for seed in range(self.curve_seeds) for method in pair for c in self.curve(task, method, seed)]
        for task in self.tasks:
            for method in others:
                found += self.rates(task, method) + self.finals(task, method)
        return found


@dataclass(frozen=True)
class Trained:
    """A trained model with its task and what training did."""

    model: Any
    task: Any
    result: Any
    parameters: int


def train_one(
    study: Study,
    context: Context,
    task_name: str,
    method: Method,
    rate: float,
    seed: int,
    *,
    split: str,
    alpha: Mapping[str, Any] | None = None,
) -> Trained:
    """Train a method with one learning rate on a split.

    Raises:
        NotAvailable: data, weights or a library are not there.
    """
    task, settings = task_and_settings(study, context, task_name, method, rate, seed, split=split, alpha=alpha)
    import glora
    from glora.training.loop import first_batch, train

    with one_thread(study.device == "cpu"):
        model = task.build_model(seed)
        model = adapt(model, method, task.heads, seed)
        if method.options.get("steps") == "balanced":  # as `glora tune` does
            glora.balance(model, first_batch(model, task, settings), forward=task.loss)
        parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
        return Trained(model, task, train(model, task, settings), parameters)


def task_and_settings(
    study: Study,
    context: Context,
    task_name: str,
    method: Method,
    rate: float,
    seed: int,
    *,
    split: str,
    alpha: Mapping[str, Any] | None = None,
) -> tuple[Any, Any]:
    """The task and the `glora.runs.settings.TrainingSettings` of `train_one`.

    Raises:
        NotAvailable: data, weights or a library are not there.
    """
    try:
        from glora.runs.settings import AlphaSettings, TrainingSettings
        from glora.tasks.text.glue import Glue
    except ImportError as error:
        raise NotAvailable(f"needs {error.name}; pip install 'rescale-and-adapt[hf,learn]'") from None
    size = 60 if context.quick else study.tasks[task_name]
    task = Glue(
        dataset=task_name,
        model=str(context.folder("models", study.model)),
        folder=str(context.folder("data", "glue", task_name)),
        pooling="mean",
        max_length=study.max_length,
        train_size=size,
    )
    epochs = 1.0 if context.quick else study.epochs
    own_rate = {} if method.name == "alpha_lora" else {"lr": rate}
    settings = TrainingSettings(
        epochs=epochs,
        batch_size=study.batch_size,
        micro_batch_size=8 if study.device == "cpu" else None,
        lr=rate,
        split=split,
        evaluate_every=0 if split != "train" else max(1, int(task.size(split) / study.batch_size)),
        keep="last",
        seed=seed,
        device=study.device,
        alpha=AlphaSettings(**{**own_rate, **method.alpha, **(alpha or {})}),
    )
    return task, settings


def selection(study: Study, context: Context, task: str, name: str, rate: float) -> Figures:
    """Figures of a cell that tries a learning rate: metrics on validation after every epoch."""
    seed = context.seed_for("glue", task, "selection")
    done = train_one(study, context, task, METHODS[name], rate, seed, split="train")
    evaluations = [line for line in done.result.history if "validation" in line]
    return {
        "rate": rate,
        "validation": evaluations[-1]["validation"],
        "curve": [[line["step"], line["validation"]["accuracy"]] for line in evaluations],
        "passes": done.result.passes,
    }


def score(figures: Figures) -> float:
    """How good the rate of a `selection` is."""
    return -float(figures["validation"]["loss"])


def final(
    study: Study, context: Context, task: str, name: str, rate: float, number: int, *, replaced: bool = False
) -> Figures:
    """Figures of a final run: every answer on the development set, α if there is one, and the cost.

    Args:
        study, context: the study and where its data are.
        task, name, rate: what is trained, and how fast.
        number: of the seed.
        replaced: also what happens when the trained α is replaced (`affine`).
    """
    import glora
    from glora.model.state import get_state

    seed = context.seed_for("glue", task, f"seed{number}")
    done = train_one(study, context, task, METHODS[name], rate, seed, split="train+validation")
    with one_thread(study.device == "cpu"):
        split = "validation" if context.quick else "test"
        labels = np.array(done.task.labels(split))
        correct = done.task.logits(done.model, split).argmax(1).numpy() == labels
        scales = glora.alphas(done.model) if get_state(done.model) is not None else {}
        figures = {
            "rate": rate,
            "accuracy": 100.0 * float(correct.mean()),
            "correct": bits(correct),
            "majority": 100.0 * float(np.bincount(labels).max() / len(labels)),
            "loss": [[line["step"], round(line["loss"], 4)] for line in done.result.history if "loss" in line],
            "steps": done.result.steps,
            "alpha_steps": done.result.alpha_steps,
            "passes": done.result.passes,
            "parameters": done.parameters,
            "train_seconds": done.result.seconds,
        }
        if scales and METHODS[name].name == "alpha_lora":
            figures["alpha"] = {key: np.round(value.cpu().numpy(), 4) for key, value in scales.items()}
            if replaced:
                figures["affine"] = affine(done, split)
    return figures


def affine(done: Trained, split: str) -> list[dict[str, Any]]:
    """The answers, merged, when the trained α is replaced by aα + b."""
    import glora

    labels = np.array(done.task.labels(split))
    trained = glora.alphas(done.model)
    found = []
    for a, b in AFFINE:
        for name, alpha in trained.items():
            done.model.get_submodule(name).alpha = a * alpha + b
        with glora.merged(done.model):
            right = done.task.logits(done.model, split).argmax(1).numpy() == labels
        found.append({"a": a, "b": b, "correct": bits(right)})
    for name, alpha in trained.items():
        done.model.get_submodule(name).alpha = alpha
    return found


def adapt(model: Any, method: Method, heads: tuple[str, ...], seed: int) -> Any:
    """The model with the method on it."""
    from glora.tuning import methods

    if not method.name.startswith("peft:"):
        methods.apply(model, method.name, method.options, heads, seed=seed)
        return model
    try:
        import peft
    except ImportError:
        raise NotAvailable("needs peft; pip install 'rescale-and-adapt[peft]'") from None
    import torch

    target = {"target_modules": ["query", "value"], "modules_to_save": list(heads)}
    if "IA3" in method.name:
        target = {**target, "target_modules": ["key", "value", "output.dense"], "feedforward_modules": ["output.dense"]}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return peft.get_peft_model(model, getattr(peft, method.name[5:])(**method.options, **target))
