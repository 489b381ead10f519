"""The first call of an adapted model in each mode is watched: what bypasses an adapter is named in the user's own loop.

From the second call on nothing is left of it. Calls that are traced, compiled or watched already are let go by, and so
are those of evaluation in a model whose fused attention a watch would keep from its usual path.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

from glora.layer.forward import is_traced
from glora.layer.watching import Watch
from glora.layer.wrappers import AdaptedLayer
from glora.model.state import adapted_modules, get_state, require_state
from glora.model.targets import base_modules

_SHOWN = 4


def watch(model: nn.Module) -> None:
    """Watch the next call in training mode, and the next one in evaluation mode."""
    stop(model)
    require_state(model).unseen = {True, False}
    model.register_forward_pre_hook(_before)
    model.register_forward_hook(_after, always_call=True)


@contextmanager
def unwatched(model: nn.Module) -> Iterator[None]:
    """Inside the ``with`` block calls are not watched: whoever measures a model works with its weights."""
    state = get_state(model)
    unseen = set() if state is None else state.unseen
    if state is not None:
        state.unseen = set()
    try:
        yield
    finally:
        if state is not None:
            state.unseen = unseen


def stop(model: nn.Module) -> None:
    """Watch no more."""
    for hooks, hook in ((model._forward_pre_hooks, _before), (model._forward_hooks, _after)):
        for key in [key for key, found in hooks.items() if found is hook]:
            del hooks[key]
            model._forward_hooks_always_called.pop(key, None)


def _before(model: nn.Module, _: Any) -> None:
    state = get_state(model)
    if torch.compiler.is_compiling() or state is None or state.active is None or state.merged is not None:
        return
    if model.training not in state.unseen or state.watch is not None or is_traced():
        return
    if _get_current_dispatch_mode_stack() or torch._C._functorch.peek_interpreter_stack() is not None:
        return
    state.unseen.discard(model.training)
    if not torch.is_grad_enabled() and any(isinstance(module, nn.MultiheadAttention) for module in model.modules()):
        return
    layers = {key: module for key, module in adapted_modules(model) if isinstance(module, AdaptedLayer)}
    state.watch = Watch(layers, state.active, (module for _, module in base_modules(model)))
    state.watch.__enter__()


def _after(model: nn.Module, *_: Any) -> None:
    state = get_state(model)
    if state is None or state.watch is None:
        return
    seen, state.watch = state.watch, None
    seen.__exit__(None, None, None)
    if not state.unseen:
        stop(model)
    if seen.bypassed:
        shown = ", ".join(f"{key!r} (by {operator})" for key, operator in list(seen.bypassed.items())[:_SHOWN])
        more = f" and {len(seen.bypassed) - _SHOWN} more" if len(seen.bypassed) > _SHOWN else ""
        warnings.warn(
            f"the model computes with the frozen weight of adapted layers past their adapters: {shown}{more}; let it "
            "call the layer or read its weight at each use, or leave the layer out of the target (glora.certify shows "
            "the whole)",
            stacklevel=2,
        )
