"""How far does the first step of AdamW move a layer, tensor by tensor, at one learning rate?

Not a claim of the paper, which lets its tensors share a rate: the check of the rule by which this layer makes them
(`glora.layer.steps`). The rule counts random signs; AdamW's first step takes the signs of the gradient, which agree
over inputs, so that a low-rank tensor gains up to √rank over them, LoRA of rank 4 itself up to 2. Ranks 1, 16 and 64
stand beside 4, since a step is to make them alike too.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from paper_checks.core import COMMITTED, OURS, Check, Context, Figures, NotAvailable, Outcome, Row, Verdict
from paper_checks.statistics.threads import one_thread

WITHIN, SHARE = 3.0, 0.95
#: Together they have every choice of every tensor.
STRUCTURES: tuple[dict[str, Any], ...] = (
    {"A": "lora", "B": "lora", "C": "lora", "D": "vector", "E": "vector", "rank": 4, "init": "xavier"},
    {"A": "vector", "B": "vector", "C": "vector", "D": "scalar", "E": "scalar"},
    {"A": "scalar", "B": "scalar"},
    *({"A": "lora", "B": "lora", "C": "lora", "rank": rank} for rank in (1, 16, 64)),
)


class Steps(Check):
    """See the module's docstring."""

    id = "glora.steps"
    claim = (
        "With steps measured on one batch, AdamW's first step moves every layer's output through any support tensor as "
        "far as through LoRA's (ours)."
    )
    where = "not in the paper: GLoRA's tensors share one learning rate"
    rule = (
        f"For every linear layer and every choice of A to E alone (low-rank ones of rank 1, 4, 16 and 64): the root "
        f"mean square change of the layer's output when its zero-started numbers move by the sign of their gradient on "
        f"a training batch, over the same for LoRA of rank 4. Reproduced if in every model at least {SHARE:.0%} of the "
        f"ratios lie within a factor {WITHIN:g} of 1, else not reproduced; the tensors outside are listed. Raw ratios "
        f"(steps of 1) stand beside them."
    )
    short = "With measured steps, AdamW's first step moves every tensor as far as LoRA's."
    scale = "ViT-S/14 at 56 px, MiniLM-L6, a Llama of four layers with random weights"
    words = OURS
    needs = ("data/vtab", "data/glue", "models", "PyTorch, transformers and Pillow", "about a minute")

    def cells(self, context: Context) -> Sequence[str]:
        return ["vit-s14", "minilm-l6", "tiny-llama"]

    def compute(self, context: Context, cell: str) -> Figures:
        if context.quick:
            raise NotAvailable("a small version says nothing; tests/glora/layer/test_steps.py has toy layers")
        task = _task(context, cell)
        with one_thread():
            return {"ratios": ratios(task), "examples": BATCH}

    def judge(self, cells: Mapping[str, Figures]) -> Outcome:
        if not cells:
            return Outcome(Verdict.UNDECIDED, "no model was measured yet")
        rows, good, sentences = [], True, []
        for model, figures in cells.items():
            inside, total = 0, 0
            for choice, found in figures["ratios"].items():
                balanced = np.array(found["balanced"])
                fits = (balanced <= WITHIN) & (balanced >= 1 / WITHIN)
                inside, total = inside + int(fits.sum()), total + len(fits)
                rows.append(Row(f"{model}: {choice}, raw (median of LoRA's)", None, float(np.median(found["raw"]))))
                text = f"{np.median(balanced):.2f} ({balanced.min():.2g} to {balanced.max():.2g})"
                rows.append(Row(f"{model}: {choice}, measured (median, range)", None, text))
                outside = [layer for layer, fit in zip(found["layers"], fits, strict=True) if not fit]
                if outside:
                    rows.append(Row(f"{model}: {choice} outside a factor {WITHIN:g}", None, ", ".join(outside)))
            good &= inside >= SHARE * total
            sentences.append(f"{model}: {inside / total:.1%} of {total} first steps within a factor {WITHIN:g}")
        missing = [model for model in self.cells(Context(out=COMMITTED)) if model not in cells]
        if missing and good:
            return Outcome(Verdict.UNDECIDED, f"{'; '.join(sentences)}; missing: {', '.join(missing)}", tuple(rows))
        return Outcome(Verdict.REPRODUCED if good else Verdict.NOT_REPRODUCED, "; ".join(sentences), tuple(rows))


BATCH = 32


def _task(context: Context, model: str) -> Any:
    from glora.tasks import make_task

    if model == "tiny-llama":
        return _Llama()
    weights = str(context.folder("models", model))
    if model == "vit-s14":
        folder = str(context.folder("data", "vtab", "gtsrb"))
        return make_task("vtab", {"folder": folder, "model": weights, "side": 56})
    folder = str(context.folder("data", "glue", "mrpc"))
    return make_task("glue", {"dataset": "mrpc", "folder": folder, "model": weights, "pooling": "mean"})


class _Llama:
    """Next tokens of a random walk, on a Llama small enough to be made up as well; what a check asks of a task."""

    heads = ()

    def build_model(self, seed: int) -> Any:
        import torch
        from transformers import LlamaConfig, LlamaForCausalLM

        sizes: dict[str, Any] = {
            "hidden_size": 128,
            "intermediate_size": 352,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
        }
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return LlamaForCausalLM(LlamaConfig(vocab_size=256, **sizes)).requires_grad_(False)

    def batch(self, split: str, rows: Sequence[int]) -> Any:
        import torch

        return torch.from_numpy(np.random.default_rng(0).zipf(1.5, (len(rows), 64)).cumsum(axis=1) % 256)

    def loss(self, model: Any, batch: Any) -> Any:
        return model(input_ids=batch, labels=batch).loss


def ratios(task: Any) -> dict[str, dict[str, Any]]:
    """For every choice of a tensor: layers, and the first steps of AdamW over LoRA's, raw and measured."""
    lora = dict(moved(task, {"B": "lora", "rank": 4}, "raw"))
    found: dict[str, dict[str, Any]] = {}
    for fields in STRUCTURES:
        raw, balanced = (dict(moved(task, fields, steps)) for steps in ("raw", "balanced"))
        for (layer, tensor), change in raw.items():
            # Nothing: D on a bias of zeros, and (but for rounding) one shift of all keys, which softmax ignores.
            if not change > 0 or not balanced[layer, tensor] > 0:
                continue
            rank = fields.get("rank", 4)
            choice = f"{tensor} {fields[tensor]}" + (f" of rank {rank}" if rank != 4 else "")
            one = found.setdefault(choice, {"layers": [], "raw": [], "balanced": []})
            one["layers"].append(layer)
            one["raw"].append(round(change / lora[layer, "B"], 4))
            one["balanced"].append(round(balanced[layer, tensor] / lora[layer, "B"], 4))
    return found


def moved(task: Any, fields: Mapping[str, Any], steps: str) -> Iterator[tuple[tuple[str, str], float]]:
    """By (layer, tensor): how far one AdamW step at rate 1 moves the layer's output, root mean square."""
    import torch

    import glora
    from glora.model.balancing import places_of

    model = task.build_model(0)
    config = glora.GLoRAConfig(**fields, modules_to_save=task.heads, steps=steps)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a Llama has no biases for D to scale
        glora.attach(model, config, generator=torch.Generator().manual_seed(0))
    batch = task.batch("train", range(BATCH))
    if steps == "balanced":
        glora.balance(model, batch, forward=task.loss)
    model.eval()
    places = places_of(model, "default")
    inputs: dict[str, Any] = {}
    hooks = [
        place.module.register_forward_pre_hook(lambda _, args, name=place.name: inputs.__setitem__(name, args[0]))
        for place in places
    ]
    task.loss(model, batch).backward()
    for hook in hooks:
        hook.remove()
    with torch.no_grad():
        for place in places:
            x = inputs[place.name]
            before = place.adapter(x, place.base)
            for tensor, parameter in place.adapter.started_at_zero.items():
                if parameter.grad is None:
                    continue
                parameter.sub_(parameter.grad.sign())
                change = (place.adapter(x, place.base) - before).square().mean().sqrt()
                parameter.zero_()
                yield (place.name, tensor), float(change)


CHECK = Steps()
