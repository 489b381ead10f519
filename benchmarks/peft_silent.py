"""What PEFT's own LoRA lets through of the museum's kinds, and what ours does: each replayed on both alike.

``python -m benchmarks.peft_silent`` prints the table of docs/silent.md, which a test compares with it. A replay ends in
one of four ways: *right* (what the user was promised), *refused* (an error names it), *warning* (a warning names it),
*silent*.
"""

from __future__ import annotations

import copy
import json
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from benchmarks.timing import row
from tests.museum import models
from tests.museum.test_certify import Checkpointed
from tests.museum.test_parents import Functional, Listed
from tests.museum.test_state import normed


class Tool(Protocol):
    """What a replay asks of a library of adapters."""

    def adapt(self, model: nn.Module, target: list[str], saved: list[str] | None = None) -> Any:
        """The model with a LoRA as if trained."""

    def copy(self, model: Any) -> nn.Module:
        """A plain model with the adapter in its weights."""

    def merge(self, model: Any) -> None:
        """Merge in place."""

    def unmerge(self, model: Any) -> None:
        """And back."""

    def remove(self, model: Any) -> nn.Module:
        """The base model again."""

    def weight(self, model: Any, name: str) -> Tensor:
        """The base's weight of a layer."""

    def module(self, model: Any, name: str) -> Any:
        """What stands in the model under a name."""

    def save(self, model: Any, folder: str) -> Path:
        """Write the adapter; returns its tensor file."""

    def load(self, model: nn.Module, folder: str) -> Any:
        """Read it onto a model."""

    def load_peft(self, model: nn.Module, folder: str) -> Any:
        """Read a checkpoint of PEFT."""


class Peft:
    """PEFT's LoRA."""

    def adapt(self, model: nn.Module, target: list[str], saved: list[str] | None = None) -> Any:  # noqa: D102
        import peft

        torch.manual_seed(2)
        config = peft.LoraConfig(r=2, target_modules=target, modules_to_save=saved, init_lora_weights=False)
        adapter = peft.get_peft_model(model, config).eval()
        for name, parameter in adapter.named_parameters():
            if "lora_B" in name:
                parameter.data.mul_(5)
        return adapter

    def copy(self, model: Any) -> nn.Module:  # noqa: D102
        return model.merge_and_unload()

    def merge(self, model: Any) -> None:  # noqa: D102
        model.merge_adapter()

    def unmerge(self, model: Any) -> None:  # noqa: D102
        model.unmerge_adapter()

    def remove(self, model: Any) -> nn.Module:  # noqa: D102
        if any(getattr(module, "merged_adapters", None) for module in model.modules()):
            model.add_adapter("other", model.peft_config["default"])
            model.delete_adapter("default")
            model.unmerge_adapter()
        return model.unload()

    def weight(self, model: Any, name: str) -> Tensor:  # noqa: D102
        return model.base_model.model.get_submodule(name).base_layer.weight

    def module(self, model: Any, name: str) -> Any:  # noqa: D102
        return model.base_model.model.get_submodule(name)

    def save(self, model: Any, folder: str) -> Path:  # noqa: D102
        model.save_pretrained(folder)
        return Path(folder, "adapter_model.safetensors")

    def load(self, model: nn.Module, folder: str) -> Any:  # noqa: D102
        import peft

        return peft.PeftModel.from_pretrained(model, folder).eval()

    load_peft = load


class Ours:
    """glora's LoRA."""

    def adapt(self, model: nn.Module, target: list[str], saved: list[str] | None = None) -> Any:  # noqa: D102
        return models.trained(model, target, modules_to_save=saved or ())

    def copy(self, model: Any) -> nn.Module:  # noqa: D102
        from glora.model.merging import merged_copy

        return merged_copy(model)

    def merge(self, model: Any) -> None:  # noqa: D102
        import glora

        glora.merge(model)

    def unmerge(self, model: Any) -> None:  # noqa: D102
        import glora

        glora.unmerge(model)

    def remove(self, model: Any) -> nn.Module:  # noqa: D102
        import glora

        glora.detach(model)
        return model

    def weight(self, model: Any, name: str) -> Tensor:  # noqa: D102
        return model.get_submodule(name).base.weight

    def module(self, model: Any, name: str) -> Any:  # noqa: D102
        return model.get_submodule(name)

    def save(self, model: Any, folder: str) -> Path:  # noqa: D102
        import glora

        glora.save(model, folder)
        return next(Path(folder).glob("adapter-*.safetensors"))

    def load(self, model: nn.Module, folder: str) -> Any:  # noqa: D102
        import glora

        glora.load(model, folder)
        return model.eval()

    def load_peft(self, model: nn.Module, folder: str) -> Any:  # noqa: D102
        from glora.peft_checkpoints import load

        load(model, folder)
        return model


def _same_when_merged(tool: Tool, model: nn.Module, target: list[str], run: Callable[[nn.Module], Tensor]) -> bool:
    """Whether merged and unmerged agree to a thousandth of what the adapter does, in float64."""
    model = model.double()
    with torch.no_grad():
        base = run(model)
        adapter = tool.adapt(model, target)
        before = run(adapter)
        after = run(tool.copy(adapter))
    return bool((after - before).norm() < 1e-3 * (after - base).norm())


def _hidden(model: nn.Module) -> Tensor:
    return model(models.ids()).last_hidden_state


def _heard(model: nn.Module) -> Tensor:
    return model(models.wave().double()).last_hidden_state


def _double(model: nn.Module) -> Tensor:
    return model(models.points().double())


def _points(model: nn.Module) -> Tensor:
    return model(models.points())


def mamba(tool: Tool) -> bool:
    """Mamba's `dt_proj`, read by its parent: merged = unmerged"""
    return _same_when_merged(tool, models.mamba(), ["dt_proj"], _hidden)


def wavlm(tool: Tool) -> bool:
    """WavLM's attention, read by its parent: merged = unmerged"""
    return _same_when_merged(tool, models.wavlm(), ["q_proj", "k_proj"], _heard)


def bloom(tool: Tool) -> bool:
    """Bloom with `slow_but_exact`: merged = unmerged"""
    return _same_when_merged(tool, models.bloom(), ["dense"], _hidden)


def functional(tool: Tool) -> bool:
    """`F.linear(x, layer.weight)` in a parent: merged = unmerged"""
    models.seeded()
    return _same_when_merged(tool, Functional(), ["qkv"], _double)


def listed(tool: Tool) -> bool:
    """layers called through a list and a bound method: merged = unmerged"""
    models.seeded()
    return _same_when_merged(tool, Listed(), ["first", "second"], _double)


def fast_path(tool: Tool) -> bool:
    """`nn.TransformerEncoder`: evaluation = training"""
    model, x = tool.adapt(models.encoder(), ["linear1", "linear2"]), torch.randn(3, 5, 8)
    with torch.no_grad():
        evaluated = model(x)
        return torch.allclose(evaluated, model.train()(x), rtol=1e-3, atol=1e-5)


def _drifted(tool: Tool) -> Any:
    adapter = tool.adapt(normed(), ["0"])
    adapter.train()
    adapter(3 * torch.randn(16, 6))
    return adapter.eval()


def statistics(tool: Tool) -> bool:
    """BatchNorm: the base's bits after the adapter is removed"""
    return torch.equal(_points(tool.remove(_drifted(tool))), _points(normed()))


def saved_statistics(tool: Tool) -> bool:
    """BatchNorm: saved and loaded = trained"""
    adapter = _drifted(tool)
    with tempfile.TemporaryDirectory() as folder:
        tool.save(adapter, folder)
        return torch.allclose(_points(tool.load(normed(), folder)), _points(adapter))


def failed_merge(tool: Tool) -> bool:
    """a merge that fails in a later layer leaves the base"""
    model = nn.Sequential(nn.Linear(6, 6), nn.utils.parametrizations.weight_norm(nn.Linear(6, 6)))
    adapter = tool.adapt(model, ["0", "1"])
    before = tool.weight(adapter, "0").clone()
    try:
        tool.merge(adapter)
    except Exception:  # whatever it is
        return torch.equal(tool.weight(adapter, "0"), before)
    return True


def unmerged_bits(tool: Tool) -> bool:
    """merging and unmerging gives the base's bits back"""
    model = tool.adapt(models.plain(), ["0"])
    before = tool.weight(model, "0").clone()
    tool.merge(model)
    tool.unmerge(model)
    return torch.equal(tool.weight(model, "0"), before)


def removed_while_merged(tool: Tool) -> bool:
    """an adapter removed while merged leaves the base, to rounding"""
    model = tool.adapt(models.plain(), ["0"])
    tool.merge(model)
    return torch.allclose(_points(tool.remove(model)), _points(models.plain()), atol=1e-5)


def trained_while_merged(tool: Tool) -> bool:
    """training while merged"""
    model = tool.adapt(nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 3)), ["0"], ["1"])
    tool.merge(model)
    model.train()(models.points()).sum().backward()
    return all(p.grad is not None for p in model.parameters() if p.requires_grad)


def state_while_merged(tool: Tool) -> bool:
    """a state dict while merged"""
    model = tool.adapt(models.plain(), ["0"])
    before = {key: value.clone() for key, value in model.state_dict().items()}
    tool.merge(model)
    return all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def _stored(tool: Tool, folder: str, target: list[str] | None = None) -> Path:
    return tool.save(tool.adapt(models.plain(), target or ["0"]), folder)


def another_base(tool: Tool) -> bool:
    """loading onto another base"""
    with tempfile.TemporaryDirectory() as folder:
        _stored(tool, folder)
        other = models.plain()
        other[0].weight.data.normal_()
        tool.load(other, folder)
    return False


def damaged_file(tool: Tool) -> bool:
    """a flipped bit in the file"""
    with tempfile.TemporaryDirectory() as folder:
        file = _stored(tool, folder)
        data = bytearray(file.read_bytes())
        data[-3] ^= 0xFF
        file.write_bytes(bytes(data))
        tool.load(models.plain(), folder)
    return False


def missing_keys(tool: Tool) -> bool:
    """missing tensors in the file"""
    from safetensors.torch import load_file, save_file

    with tempfile.TemporaryDirectory() as folder:
        file = _stored(tool, folder, ["0", "2"])
        tensors = {key: tensor.clone() for key, tensor in load_file(file).items()}
        file.unlink()
        save_file({key: t for key, t in tensors.items() if not key.startswith("2.") and ".2." not in key}, file)
        tool.load(models.plain(), folder)
    return False


def unknown_field(tool: Tool) -> bool:
    """an unknown field in PEFT's configuration"""
    with tempfile.TemporaryDirectory() as folder:
        _stored(Peft(), folder)
        file = Path(folder, "adapter_config.json")
        file.write_text(json.dumps({**json.loads(file.read_text()), "use_some_new_dora": True}))
        tool.load_peft(models.plain(), folder)
    return False


def no_target(tool: Tool) -> bool:
    """a target that matches nothing"""
    tool.adapt(models.plain(), ["to_q"])
    return False


def ties(tool: Tool) -> bool:
    """a tied layer, adapted and merged: the flag is set"""
    return not tool.copy(tool.adapt(models.qwen2(), ["lm_head"])).config.tie_word_embeddings


def attributes(tool: Tool) -> bool:
    """attributes of a module trained in full"""
    model = tool.adapt(models.dinov2(), ["q_proj"], ["patch_embeddings"])
    return tool.module(model, "embeddings.patch_embeddings").patch_size == (4, 4)


def dead(tool: Tool) -> bool:
    """nothing trains under reentrant checkpointing"""
    model = tool.adapt(nn.Sequential(Checkpointed(models.plain()), nn.Linear(3, 2)), ["0.body.0"], ["1"]).train()
    model(models.points().requires_grad_(False)).sum().backward()
    return False


FAULTS: tuple[Callable[[Tool], bool], ...] = (
    mamba,
    wavlm,
    bloom,
    functional,
    listed,
    fast_path,
    statistics,
    saved_statistics,
    failed_merge,
    unmerged_bits,
    removed_while_merged,
    trained_while_merged,
    state_while_merged,
    another_base,
    damaged_file,
    missing_keys,
    unknown_field,
    no_target,
    ties,
    attributes,
    dead,
)
# A warning that has one of these words is about the fault.
_WORDS = ("tied", "tie_word", "one parameter", "missing", "nexpected", "requires_grad", "merged")


def outcome(fault: Callable[[Tool], bool], tool: Tool) -> str:
    """right, refused, warning or silent; the random state is left as it was."""
    with warnings.catch_warnings(record=True) as caught, torch.random.fork_rng(devices=[]):
        warnings.simplefilter("always")
        torch.manual_seed(0)
        try:
            right = fault(copy.copy(tool))
        except Exception:  # an exception is a name
            return "refused"
    named = any(word in str(warning.message) for warning in caught for word in _WORDS)
    return "right" if right else "warning" if named else "silent"


def label(fault: Callable[[Tool], bool]) -> str:
    """What the table calls a fault."""
    return str(fault.__doc__)


def table() -> list[str]:
    """The lines of the table in docs/silent.md."""
    lines = ["| kind | PEFT | here |", "| --- | --- | --- |"]
    return lines + [f"| {label(f)} | {outcome(f, Peft())} | {outcome(f, Ours())} |" for f in FAULTS]


def measure() -> list[dict[str, Any]]:
    """A row a fault and library: 1 where the fault is impossible or named, 0 where it is silent."""
    rows = []
    for fault in FAULTS:
        rows.append(row(f"PEFT: {label(fault)}", float(outcome(fault, Peft()) != "silent")))
        rows.append(row(f"here: {label(fault)}", float(outcome(fault, Ours()) != "silent"), at_least=1))
    return rows


if __name__ == "__main__":
    print("\n".join(table()))
