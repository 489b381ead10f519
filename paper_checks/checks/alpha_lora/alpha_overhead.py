"""What α-LoRA costs beyond LoRA: parameters on roberta-base, and the time of a training step."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

import glora
from glora import presets
from glora.runs.settings import AlphaSettings
from paper_checks.core import Check, Context, Figures, NotAvailable, Outcome, Row, Verdict
from paper_checks.statistics.threads import one_thread
from paper_checks.statistics.timing import ratio_error

if TYPE_CHECKING:
    from torch import nn

TARGET = r"(query|value)$"
RANK = 8
EVERY = 10  #: T of the official code: a step of α, on a batch as large as the adapter's, after every tenth step


class AlphaOverhead(Check):
    """See the module's docstring."""

    id = "alpha_lora.alpha_overhead"
    claim = "α-LoRA adds a negligible number of parameters to LoRA."
    short = "α-LoRA adds a negligible number of parameters to LoRA."
    shown = ("trainable parameters, α-LoRA", "parameters (LoRA: 887,042)")
    scale = "RoBERTa-base's shapes, as the paper"
    where = "α-LoRA, Section 5 (887,042 against 905,474 trainable; unlabelled notebook times are 25–31 % slower)"
    rule = (
        "Reproduced if, on roberta-base's shapes at rank 8 on query and value, LoRA trains 887,042 and α-LoRA "
        "905,474 parameters; else not reproduced. The paper reports no time, so the time of a training step, "
        f"Algorithm 1's step of α after every T = {EVERY} steps included, is a figure without a verdict: with a step "
        "of α that costs as much as one of the adapter it cannot be below 1 + 1/T."
    )
    needs = ("transformers",)

    def cells(self, context: Context) -> Sequence[str]:
        return ["parameters", "time"]

    def compute(self, context: Context, cell: str) -> Figures:
        if cell == "parameters":
            return _parameters()
        # The id that the check had when its cells were computed: the same seeds.
        seed = context.seed_for("glora.alpha_overhead", cell)
        return _time(seed, 4 if context.quick else 31)

    def judge(self, cells: Mapping[str, Figures]) -> Outcome:
        counts, times = cells.get("parameters"), cells.get("time")
        verdict = Verdict.NOT_RUN
        rows: list[Row] = []
        said: list[str] = []
        if counts:
            holds = counts["lora"] == 887_042 and counts["alpha_lora"] == 905_474
            verdict = Verdict.REPRODUCED if holds else Verdict.NOT_REPRODUCED
            rows += [
                Row("trainable parameters, LoRA", 887_042, counts["lora"]),
                Row("trainable parameters, α-LoRA", 905_474, counts["alpha_lora"]),
            ]
            said.append(f"{counts['alpha_lora'] - counts['lora']:,} parameters more")
        if times:
            # T steps of the adapter and one of α, as a multiple of T steps of LoRA.
            whole = times["ratio"] + times["alpha_ratio"] / EVERY
            error = float(np.hypot(times["error"], times["alpha_error"] / EVERY))
            rows += [
                Row(f"training step, α-LoRA by Algorithm 1 (T = {EVERY}) / LoRA", None, whole, error),
                Row("training step of the adapter alone, α-LoRA / LoRA", None, times["ratio"], times["error"]),
                Row("step of α alone / step of LoRA", None, times["alpha_ratio"], times["alpha_error"]),
                Row("training step, α-LoRA recomputing / LoRA", None, times["recompute_ratio"]),
                Row("training step, our LoRA / PEFT's LoRA", None, times["peft_ratio"]),
            ]
            said.append(
                f"a training step takes {whole:.3f} ± {error:.3f} of LoRA's time with α's own steps (T = {EVERY}), "
                f"{times['ratio']:.3f} ± {times['error']:.3f} without"
            )
        return Outcome(verdict, "; ".join(said) + ".", tuple(rows))


def _roberta(**sizes: int) -> nn.Module:
    try:
        from transformers import RobertaConfig, RobertaForSequenceClassification
    except ImportError as error:
        raise NotAvailable("needs transformers: pip install 'rescale-and-adapt[hf]'") from error
    shapes: dict[str, Any] = {"vocab_size": 50265, "max_position_embeddings": 514, "type_vocab_size": 1}
    return RobertaForSequenceClassification(RobertaConfig(**shapes | sizes))


def _parameters() -> Figures:
    import torch

    with torch.device("meta"):
        model = _roberta()
    return {
        name: glora.count_parameters(preset(RANK, TARGET, modules_to_save=["classifier"]), model).trainable
        for name, preset in (("lora", presets.lora), ("alpha_lora", presets.alpha_lora))
    }


@one_thread()
def _time(seed: int, rounds: int) -> Figures:
    """Interleaved training steps on two of roberta-base's twelve layers, CPU time on one thread."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, 1000, (8, 64), generator=generator)
    labels = torch.randint(0, 2, (8,), generator=generator)

    def small() -> nn.Module:
        torch.manual_seed(seed)
        return _roberta(num_hidden_layers=2, vocab_size=1000)

    models = []
    for config in (
        presets.lora(RANK, TARGET),
        presets.alpha_lora(RANK, TARGET),
        presets.alpha_lora(RANK, TARGET, recompute=True),
    ):
        model = small()
        glora.attach(model, config)
        models.append(model)
    steps = [_step(model, ids, labels) for model in models] + [_alpha_step(models[1], ids, labels)]
    try:
        import peft

        other = peft.get_peft_model(small(), peft.LoraConfig(r=RANK, target_modules=["query", "value"]))
        steps.append(_step(other, ids, labels))
    except ImportError:
        pass  # PEFT's column is left out
    times: list[list[float]] = [[] for _ in steps]
    for index in range(rounds + 1):
        for which in np.roll(np.arange(len(steps)), index):
            start = time.process_time()
            steps[which]()
            if index:  # the first round warms up
                times[which].append(time.process_time() - start)
    lora = median(times[0])
    return {
        "ratio": median(times[1]) / lora,
        "error": ratio_error(times[1], times[0]),
        "recompute_ratio": median(times[2]) / lora,
        "alpha_ratio": median(times[3]) / lora,
        "alpha_error": ratio_error(times[3], times[0]),
        "peft_ratio": lora / median(times[4]) if len(times) > 4 else "PEFT not installed",
        "rounds": rounds,
        "seconds": lora,
    }


def _step(model: nn.Module, ids: Any, labels: Any) -> Callable[[], None]:
    import torch

    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)

    def step() -> None:
        model(input_ids=ids, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def _alpha_step(model: nn.Module, ids: Any, labels: Any) -> Callable[[], None]:
    """The other half of Algorithm 1: Adam on α, nothing else moves."""
    from glora.training.alpha import AlphaSchedule, alpha_parameters, gradients

    schedule = AlphaSchedule(alpha_parameters(model).values(), AlphaSettings(every=EVERY))

    def fill_gradients(parameters: Sequence[nn.Parameter]) -> float:
        loss = model(input_ids=ids, labels=labels).loss
        gradients(loss, parameters)
        return float(loss.detach())

    def step() -> None:
        schedule.step(fill_gradients)

    return step


CHECK = AlphaOverhead()
