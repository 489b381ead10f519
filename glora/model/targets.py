"""Which layers of a model a configuration speaks of, and clear errors when it speaks of none."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import nn

from glora.config import GLoRAConfig, LayerConfig
from glora.layer.adapter import check_supported
from glora.layer.geometry import SUPPORTED, is_transformers_conv1d, not_mergeable, op_for
from glora.layer.wrappers import Adapted

# A module is a head if a component of its name is one of these, or if transformers calls it the output
# embedding.
HEAD_NAMES = frozenset(
    {"head", "heads", "head_dist", "lm_head", "classifier", "pre_classifier", "score", "qa_outputs"}
    | {"seq_relationship", "predictions"}
)


_CONTAINERS = (nn.ModuleList, nn.ModuleDict, nn.ParameterList, nn.ParameterDict)


@dataclass(frozen=True)
class Selection:
    """What a configuration selects in a model.

    Attributes:
        layers: configuration of every layer to be adapted, by name.
        saved: names of the modules to be trained in full.
        heads: names of output layers that were left alone.
        unsupported: names of matched modules that are not of a supported type (only for patterns).
        norms: see `GLoRAConfig`.
    """

    layers: dict[str, LayerConfig]
    saved: tuple[str, ...]
    heads: tuple[str, ...]
    unsupported: tuple[str, ...] = ()
    norms: str = "trained"


def base_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """(name, module) of the model as it was before adapters: an adapted module counts as its base."""

    def walk(prefix: str, module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
        if isinstance(module, Adapted):
            module = module.base
        yield prefix, module
        for name, child in module.named_children():
            yield from walk(f"{prefix}.{name}" if prefix else name, child)

    yield from walk("", model)


def _second_names(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """(name, module) of modules that their parent has under another name already, which `base_modules` leaves out."""
    for prefix, module in base_modules(model):
        seen: set[int] = set()
        for name, child in module._modules.items():
            if child is not None and id(child) in seen:
                yield f"{prefix}.{name}" if prefix else name, child.base if isinstance(child, Adapted) else child
            seen.add(id(child))


def select(model: nn.Module, config: GLoRAConfig) -> Selection:
    """Find the layers and saved modules that `config` names.

    Raises:
        ValueError: a name, a pattern or an override matches nothing (near misses are listed), a named layer
            is of an unsupported type, or a saved module contains a named layer.
    """
    modules = dict(base_modules(model))
    # A module that stands in two places is adapted once, under its first name.
    first = {id(modules[name]): name for name in reversed(list(modules))}

    def first_names(names: Sequence[str]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(first[id(named[name])] for name in names))

    named = modules | dict(_second_names(model))
    saved = first_names(_named(named, config.modules_to_save, "modules_to_save"))
    for name in saved:
        if isinstance(modules[name], _CONTAINERS):
            raise ValueError(
                f"modules_to_save: {name!r} is a {type(modules[name]).__name__}, which holds modules and computes "
                "nothing; name its members"
            )
    chosen = first_names(_matches(named, config))
    candidates = [name for name in chosen if not any(is_inside(name, parent) for parent in saved)]
    explicit = not isinstance(config.target, str)
    heads: list[str] = []
    unsupported: list[str] = []
    layers: dict[str, LayerConfig] = {}
    output = _output_embedding(model)
    for name in candidates:
        module, layer = modules[name], config.layer_for(name)
        parent = modules[name.rpartition(".")[0]]
        if config.exclude_heads and not explicit and (module is output or is_head(name)):
            heads.append(name)
        elif isinstance(parent, nn.MultiheadAttention):
            if explicit:
                raise ValueError(
                    f"{name!r} belongs to nn.MultiheadAttention, which reads its weights without calling "
                    "the layer; an adapter there would be ignored"
                )
            unsupported.append(name)
        elif op_for(module) is None and not explicit and not not_mergeable(module):
            unsupported.append(name)
        else:
            if layer.is_empty:
                continue
            try:
                check_supported(layer, module)
            except ValueError as error:
                raise ValueError(f"layer {name!r}: {error}") from error
            layers[name] = layer
    if not candidates and not (config.layer.is_empty and saved):
        raise ValueError(f"target={config.target!r} matches no layer outside modules_to_save")
    if not layers and not saved:
        if all(config.layer_for(name).is_empty for name in candidates):
            raise ValueError(
                "nothing would be trained: every support tensor is 'none' and modules_to_save is empty; "
                "give A, B, C, D or E a structure, or take a preset"
            )
        raise ValueError(
            f"target={config.target!r} matches no layer that can be adapted: "
            f"output layers left alone {heads or 'none'} (exclude_heads=False includes them), "
            f"unsupported {unsupported or 'none'} (supported are {SUPPORTED})"
        )
    for pattern in config.overrides.keys() - {config.override_for(name) for name in candidates}:
        if not any(re.search(pattern, name) for name in candidates):
            raise ValueError(
                f"overrides[{pattern!r}] matches none of the {len(candidates)} targeted layers"
                f"{_near(pattern, candidates)}"
            )
    return Selection(layers, saved, tuple(heads), tuple(unsupported), config.norms)


def is_head(name: str) -> bool:
    """True if the name is an output layer's: a component is in `HEAD_NAMES`, or the whole name is "fc"."""
    return name == "fc" or bool(HEAD_NAMES & set(name.split(".")))


def _output_embedding(model: nn.Module) -> nn.Module | None:
    getter = getattr(model, "get_output_embeddings", None)
    try:
        found = getter() if getter is not None else None
    except (AttributeError, NotImplementedError):
        return None
    return found.base if isinstance(found, Adapted) else found


def _matches(modules: dict[str, nn.Module], config: GLoRAConfig) -> list[str]:
    """Names that `config.target` matches, heads and unsupported types included."""
    target = config.target
    if target == "all-linear":
        found = [name for name, module in modules.items() if name and _is_linear(module)]
        if not found:
            hint = "; it is one itself: wrap it, model = nn.Sequential(model)" if _is_linear(modules[""]) else ""
            raise ValueError(f"target='all-linear' finds no linear layer in this model{hint}")
        return found
    if isinstance(target, str):
        # Containers match patterns too; only modules with a weight matrix of their own can be meant.
        matched = [name for name in modules if name and re.search(target, name)]
        found = [name for name in matched if _has_matrix(modules[name])]
        if not found:
            kinds = sorted({type(modules[name]).__name__ for name in matched})
            reason = f"matches only {kinds}, none a layer with a weight matrix" if kinds else "matches no layer"
            raise ValueError(f"target={target!r} {reason}{_near(target, _layer_names(modules))}")
        return found
    if callable(target):
        found = [name for name, module in modules.items() if name and _has_matrix(module) and target(name, module)]
        if not found:
            raise ValueError("target is a function that returned False for every layer with a weight matrix")
        return found
    return list(_named(modules, target, "target"))


def _named(modules: dict[str, nn.Module], names: Sequence[str], argument: str) -> tuple[str, ...]:
    """Modules with these names; a name that is no module's counts as the last components of names."""
    found: dict[str, None] = {}
    for name in names:
        hits = [name] if name in modules else [full for full in modules if full.endswith("." + name)]
        if "" in hits:
            raise ValueError(
                f"{argument}: {name!r} is the model itself, which has no place in a model where an adapter could "
                "stand; wrap it: model = nn.Sequential(model)"
            )
        if not hits:
            raise ValueError(f"{argument}: no module is called {name!r}{_near(name, [n for n in modules if n])}")
        found.update(dict.fromkeys(hits))
    return tuple(found)


def _is_linear(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear) or is_transformers_conv1d(module)


def _has_matrix(module: nn.Module) -> bool:
    weight = module._parameters.get("weight")
    return not_mergeable(module) is not None or (weight is not None and weight.dim() >= 2)


def is_inside(name: str, parent: str) -> bool:
    """True if the module called `name` is the one called `parent` or stands in it."""
    return name == parent or name.startswith(parent + ".")


def _layer_names(modules: dict[str, nn.Module]) -> list[str]:
    return [name for name, module in modules.items() if name and op_for(module) is not None]


def _near(wanted: str, names: Sequence[str]) -> str:
    """A sentence with the names most like `wanted`, whole or by their last component."""
    literal = re.sub(r"[^\w.]", " ", wanted.replace("\\.", ".")).split()
    last = {name.rpartition(".")[2] for name in names}
    close: dict[str, None] = {}
    for word in literal or [wanted]:
        close.update(dict.fromkeys(difflib.get_close_matches(word, [*last, *names], n=3, cutoff=0.4)))
    if not close:
        close = dict.fromkeys(sorted(last)[:6])
    return f"; near misses: {', '.join(close)}" if close else ""
