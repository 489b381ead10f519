"""A case of the museum: a public report, its replay, and the switch that takes our mechanism out.

A case counts only if its replay passes, and fails when the mechanism is out: `check` does both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
import torch
from torch import nn

import glora
from glora.integrations import peft_checkpoints
from glora.layer import forward, geometry, wrappers
from glora.layer.adapter import Adapter
from glora.layer.wrappers import Adapted, AdaptedLayer
from glora.model import attaching, checkpoint, merging, state, statistics, targets
from glora.tuning import certify

Patch = pytest.MonkeyPatch


@dataclass(frozen=True)
class Case:
    """One report.

    Attributes:
        report: repository and number.
        said: its title and failing lines in our words.
        replay: fails unless the fault is impossible or named.
        without: a name in `SWITCHES`.
        model: the transformers architecture of the replay, if it is one.
    """

    report: str
    said: str
    replay: Callable[[], None]
    without: str
    model: str = ""

    def check(self, switched_off: bool) -> None:
        """Replay the report, with our mechanism or without."""
        if not switched_off:
            self.replay()
            return
        with off(self.without), pytest.raises((Exception, pytest.fail.Exception)):
            self.replay()


def parametrize(cases: list[Case]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A test for every case, with and without the mechanism."""

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        for mark in (
            pytest.mark.parametrize("case", cases, ids=[case.report for case in cases]),
            pytest.mark.parametrize("switched_off", [False, True], ids=["with", "without"]),
        ):
            function = mark(function)
        return function

    return decorate


@contextmanager
def off(name: str) -> Iterator[None]:
    """Take a mechanism out while the ``with`` block runs."""
    with pytest.MonkeyPatch.context() as patch:
        SWITCHES[name](patch)
        yield


@contextmanager
def named(*words: str) -> Iterator[None]:
    """Inside the ``with`` block a ValueError must come that says all these words."""
    with pytest.raises(ValueError) as caught:
        yield
    missing = [word for word in words if word not in str(caught.value)]
    assert not missing, f"{missing} are not in {caught.value}"


def _plain_weight(patch: Patch) -> None:
    patch.setattr(AdaptedLayer, "weight", property(lambda self: self.base.weight))
    patch.setattr(AdaptedLayer, "bias", property(lambda self: self.base.bias))


def _no_refusal(patch: Patch) -> None:
    from glora.layer import adapter

    for module in (geometry, adapter, targets):
        patch.setattr(module, "not_mergeable", lambda _: None)
    patch.setattr(adapter, "op_for", lambda _: geometry.LinearOp())


def _no_rollback(patch: Patch) -> None:
    patch.setattr(merging, "swap_out_all", lambda _: None)
    patch.setattr(attaching, "_remove", lambda *_: None)


def _no_statistics(patch: Patch) -> None:
    patch.setattr(statistics, "put", lambda *_: None)
    patch.setattr(statistics, "changed", lambda *_: {})
    patch.setattr(statistics, "freeze_norms", lambda *_: None)


def _no_merged_guard(patch: Patch) -> None:
    patch.setattr(AdaptedLayer, "_refuse_merged", lambda _: None)
    patch.setattr(AdaptedLayer, "_merged_forward", lambda self, x: self.base(x))


def _merging_adds(patch: Patch) -> None:
    """Merging that adds to the weight as it is, whatever has been merged, and cannot be undone."""

    def merge(model: nn.Module, name: str | None = None) -> None:
        for _, layer in state.adapted_modules(model):
            if isinstance(layer, AdaptedLayer):
                wrappers.swap(layer.base, layer.merged_parameters(name or "default"))

    patch.setattr(glora, "merge", merge)
    patch.setattr(glora, "unmerge", lambda _: None)
    patch.setattr(attaching, "unmerge", lambda _: None)


def _no_unmerging(patch: Patch) -> None:
    patch.setattr(attaching, "unmerge", lambda _: None)


def _merge_nothing(patch: Patch) -> None:
    patch.setattr(merging, "merge", lambda *_: None)


def _rough_merging(patch: Patch) -> None:
    def effective(self: Adapter, base: nn.Module):
        return self.effective_weight(base, torch.bfloat16), self.effective_bias(base, torch.bfloat16)

    patch.setattr(Adapter, "effective", torch.no_grad()(effective))


def _bare_wrappers(patch: Patch) -> None:
    patch.setattr(Adapted, "__getattr__", nn.Module.__getattr__)


def _raising_properties(patch: Patch) -> None:
    def alpha(self: Adapter) -> torch.Tensor:
        raise ValueError("alpha = 1 + A exists for a scalar or vector A")

    patch.setattr(Adapter, "alpha", property(alpha))


def _few_tokens(patch: Patch) -> None:
    patch.setattr(forward, "is_traced", lambda: False)
    patch.setattr(wrappers, "is_traced", lambda: False)


def _no_field_check(patch: Patch) -> None:
    patch.setattr(peft_checkpoints, "_check_fields", lambda _: None)


def _no_tie_report(patch: Patch) -> None:
    patch.setattr(merging, "_report_untied", lambda *_: None)


def _no_relink(patch: Patch) -> None:
    patch.setattr(attaching, "relink", lambda *_: None)


def _no_fingerprint(patch: Patch) -> None:
    patch.setattr(checkpoint, "_differences", lambda *_: [])


def _lenient_load(patch: Patch) -> None:
    """Loading that takes the tensors that happen to fit, as ``load_state_dict(strict=False)`` does."""

    def load(model: nn.Module, folder, name: str | None = None, **_) -> None:
        from pathlib import Path

        index = checkpoint.read_index(Path(folder))
        tensors = checkpoint.read_tensors(Path(folder), index)
        model.load_state_dict(tensors, strict=False)

    patch.setattr(glora, "load", load)


def _no_digest(patch: Patch) -> None:
    import hashlib

    class Same:
        def __init__(self, *_: bytes) -> None:
            pass

        def hexdigest(self) -> str:
            return "0" * 64

    patch.setattr(hashlib, "sha256", Same)


def _no_targets(patch: Patch) -> None:
    empty = targets.Selection({}, (), ())
    patch.setattr(attaching, "select", lambda *_: empty)


def _no_finite_check(patch: Patch) -> None:
    def parameters(adapter: Adapter, base: nn.Module):
        weight, bias = adapter.effective(base)
        return nn.Parameter(weight, False), None if bias is None else nn.Parameter(bias, False)

    patch.setattr(wrappers, "merged_parameters", parameters)


def _no_gradients(patch: Patch) -> None:
    patch.setattr(certify._Check, "_gradients", lambda *_: ({}, ""))


def _nothing_unmoved(patch: Patch) -> None:
    patch.setattr(certify, "moved", lambda _: ([], ()))
    patch.setattr(certify, "distance", lambda *_: 1e-9)


def _heads_stay(patch: Patch) -> None:
    """Saving that leaves the modules trained in full out."""

    def tensors(model: nn.Module, name: str) -> dict[str, torch.Tensor]:
        found = {}
        for key, module in state.adapted_modules(model):
            if isinstance(module, AdaptedLayer) and name in module.adapters:
                found |= {f"{key}.{part}": t for part, t in module.adapters[name].state_dict().items()}
        return found

    patch.setattr(checkpoint, "adapter_tensors", tensors)
    patch.setattr(checkpoint, "_mismatches", lambda *_: [])


def _not_intact(patch: Patch) -> None:
    for module in (checkpoint, merging, certify):
        patch.setattr(module, "require_intact", lambda *_: None)


def _any_layer(patch: Patch) -> None:
    patch.setattr(peft_checkpoints, "_check_fit", lambda *_: None)
    patch.setattr(peft_checkpoints, "attach_selection", lambda *_, **__: None)
    patch.setattr(peft_checkpoints, "adapted_modules", lambda _: [])
    patch.setattr(peft_checkpoints, "_from_lora", lambda *_: ({}, {}))


def _left_over(patch: Patch) -> None:
    patch.setattr(peft_checkpoints, "_saved_modules", lambda *_: {})


def _flags_lost(patch: Patch) -> None:
    from contextlib import contextmanager

    @contextmanager
    def disabled(model: nn.Module):
        active = state.require_state(model).active
        state.switch(model, None)
        yield
        state.switch(model, active)

    patch.setattr(glora, "disabled", disabled)


SWITCHES: dict[str, Callable[[Patch], None]] = {
    "effective weight": _plain_weight,
    "refusal at attach": _no_refusal,
    "rollback": _no_rollback,
    "own statistics": _no_statistics,
    "guard while merged": _no_merged_guard,
    "exact merging": _merging_adds,
    "unmerging at detach": _no_unmerging,
    "merging": _merge_nothing,
    "merging in float64": _rough_merging,
    "attributes pass through": _bare_wrappers,
    "AttributeError": _raising_properties,
    "tracing": _few_tokens,
    "known fields": _no_field_check,
    "report of ties": _no_tie_report,
    "references follow": _no_relink,
    "fingerprint": _no_fingerprint,
    "checked loading": _lenient_load,
    "digest": _no_digest,
    "targets must match": _no_targets,
    "finite numbers": _no_finite_check,
    "gradients of certify": _no_gradients,
    "movement in certify": _nothing_unmoved,
    "flags come back": _flags_lost,
    "heads are saved": _heads_stay,
    "layers must be there": _not_intact,
    "known layers": _any_layer,
    "left-over keys": _left_over,
}
