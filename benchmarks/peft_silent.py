"""What PEFT's own LoRA lets through of the museum's kinds: each replayed on it, as `tests/museum` does on ours.

A row's value is 1 where the fault is impossible or named (an exception, or a warning that names it), 0 where it is
silent.
"""

from __future__ import annotations

import copy
import json
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.timing import row
from tests.museum import models
from tests.museum.test_parents import Functional, Listed
from tests.museum.test_state import normed


def adapted(model: nn.Module, target: Any, **fields: Any) -> Any:
    """The model with PEFT's LoRA as if trained."""
    import peft

    config = peft.LoraConfig(r=2, target_modules=target, init_lora_weights=False, **fields)
    torch.manual_seed(2)
    return peft.get_peft_model(model, config).eval()


def _merged_agrees(model: nn.Module, target: Any, run: Callable[[nn.Module], Tensor]) -> bool:
    adapter = adapted(model, target)
    for name, parameter in adapter.named_parameters():
        if "lora_B" in name:
            parameter.data.mul_(5)
    with torch.no_grad():
        before = run(adapter)
        return torch.allclose(run(adapter.merge_and_unload()), before, rtol=1e-3, atol=1e-5)


def _hidden(model: nn.Module) -> Tensor:
    return model(models.ids()).last_hidden_state


def _points(model: nn.Module) -> Tensor:
    return model(models.points())


def mamba() -> bool:
    """Mamba's dt_proj, read by its parent: merged = unmerged."""
    return _merged_agrees(models.mamba(), ["dt_proj"], _hidden)


def wavlm() -> bool:
    """WavLM's attention, read by its parent: merged = unmerged."""
    return _merged_agrees(models.wavlm(), ["q_proj", "k_proj"], lambda m: m(models.wave()).last_hidden_state)


def bloom() -> bool:
    """Bloom with slow_but_exact, read by its parent: merged = unmerged."""
    return _merged_agrees(models.bloom(), ["dense"], _hidden)


def functional() -> bool:
    """F.linear(x, layer.weight) in a parent: merged = unmerged."""
    return _merged_agrees(Functional(), ["qkv"], _points)


def listed() -> bool:
    """Layers called through a plain list and a bound method: merged = unmerged."""
    return _merged_agrees(Listed(), ["first", "second"], _points)


def fast_path() -> bool:
    """TransformerEncoder: evaluation = training."""
    model, x = adapted(models.encoder(), ["linear1", "linear2"]), torch.randn(3, 5, 8)
    with torch.no_grad():
        evaluated = model(x)
        return torch.allclose(evaluated, model.train()(x), rtol=1e-3, atol=1e-5)


def statistics() -> bool:
    """BatchNorm: the base is bit-identical after unloading."""
    model, x = normed(), models.points()
    output = model(x)
    adapter = adapted(model, ["0"])
    adapter.train()
    adapter(3 * torch.randn(16, 6))
    return torch.equal(adapter.eval().unload()(x), output)


def saved_statistics() -> bool:
    """BatchNorm: what is saved and loaded is what was trained."""
    import peft

    adapter = adapted(normed(), ["0"])
    adapter.train()
    adapter(3 * torch.randn(16, 6))
    output = adapter.eval()(models.points())
    with tempfile.TemporaryDirectory() as folder:
        adapter.save_pretrained(folder)
        other = peft.PeftModel.from_pretrained(normed(), folder).eval()
    return torch.allclose(other(models.points()), output)


def failed_merge() -> bool:
    """A merge that fails in the second layer leaves the first as it was."""
    model = adapted(nn.Sequential(nn.Linear(6, 6), nn.utils.parametrizations.weight_norm(nn.Linear(6, 6))), ["0", "1"])
    before = model.base_model.model[0].base_layer.weight.clone()
    try:
        model.merge_adapter()
    except Exception:  # whatever it is
        return torch.equal(model.base_model.model[0].base_layer.weight, before)
    return torch.allclose(model(models.points()), model(models.points()))


def unmerged_bits() -> bool:
    """Merging and unmerging gives the base's weights back, bit for bit."""
    model = adapted(models.plain(), ["0"])
    before = model.base_model.model[0].base_layer.weight.clone()
    model.merge_adapter()
    model.unmerge_adapter()
    return torch.equal(model.base_model.model[0].base_layer.weight, before)


def deleted_while_merged() -> bool:
    """Deleting an adapter while it is merged restores the base."""
    import peft

    model = adapted(models.plain(), ["0"])
    before = model.base_model.model[0].base_layer.weight.clone()
    model.add_adapter("other", peft.LoraConfig(r=2, target_modules=["0"]))
    model.merge_adapter()
    model.delete_adapter("default")
    model.unmerge_adapter()
    return torch.allclose(model.base_model.model[0].base_layer.weight, before, atol=1e-6)


def trained_while_merged() -> bool:
    """Training while merged is refused or works."""
    model = adapted(nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 3)), ["0"], modules_to_save=["1"])
    model.merge_adapter()
    model.train()(models.points()).sum().backward()
    return all(p.grad is not None for name, p in model.named_parameters() if p.requires_grad and "lora" in name)


def state_while_merged() -> bool:
    """A state dict taken while merged holds the base's numbers, or is refused."""
    model = adapted(models.plain(), ["0"])
    before = {key: value.clone() for key, value in model.state_dict().items()}
    model.merge_adapter()
    return all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def another_base() -> bool:
    """An adapter loaded onto another base is refused."""
    import peft

    with tempfile.TemporaryDirectory() as folder:
        adapted(models.plain(), ["0"]).save_pretrained(folder)
        other = models.plain()
        other[0].weight.data.normal_()
        peft.PeftModel.from_pretrained(other, folder)
    return False


def damaged_file() -> bool:
    """A tensor file with a flipped bit is refused."""
    import peft

    with tempfile.TemporaryDirectory() as folder:
        adapted(models.plain(), ["0"]).save_pretrained(folder)
        file = Path(folder, "adapter_model.safetensors")
        data = bytearray(file.read_bytes())
        data[-3] ^= 0xFF
        file.write_bytes(bytes(data))
        peft.PeftModel.from_pretrained(models.plain(), folder)
    return False


def missing_keys() -> bool:
    """A file without one layer's tensors is refused, or a warning names them."""
    import peft
    from safetensors.torch import load_file, save_file

    with tempfile.TemporaryDirectory() as folder:
        adapted(models.plain(), ["0", "2"]).save_pretrained(folder)
        file = Path(folder, "adapter_model.safetensors")
        save_file({key: t for key, t in load_file(file).items() if ".2." not in key}, file)
        peft.PeftModel.from_pretrained(models.plain(), folder)
    return False


def unknown_field() -> bool:
    """A field of a newer PEFT that asks for another method is refused, or a warning names it."""
    import peft

    with tempfile.TemporaryDirectory() as folder:
        adapted(models.plain(), ["0"]).save_pretrained(folder)
        file = Path(folder, "adapter_config.json")
        file.write_text(json.dumps({**json.loads(file.read_text()), "use_some_new_dora": True}))
        peft.PeftModel.from_pretrained(models.plain(), folder)
    return False


def no_target() -> bool:
    """A target that matches nothing is refused."""
    adapted(models.plain(), ["to_q"])
    return False


def ties() -> bool:
    """A tied output layer that is adapted and merged: a warning, or the flag is set."""
    model = adapted(models.qwen2(), ["lm_head"]).merge_and_unload()
    return not model.config.tie_word_embeddings


def attributes() -> bool:
    """A module trained in full shows its own attributes."""
    model = adapted(models.dinov2(), ["q_proj"], modules_to_save=["patch_embeddings"])
    return model.base_model.model.embeddings.patch_embeddings.patch_size == (4, 4)


def dead() -> bool:
    """Reentrant checkpointing without a gradient of its input: somebody says that nothing trains."""
    from tests.museum.test_certify import Checkpointed

    model = adapted(Checkpointed(models.plain()), ["body.0"]).train()
    model(models.points().requires_grad_(False)).sum().backward()
    return False


FAULTS: tuple[Callable[[], bool], ...] = (
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
    deleted_while_merged,
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


def measure() -> list[dict[str, Any]]:
    """One row a fault."""
    rows = []
    for fault in FAULTS:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            state = copy.deepcopy(torch.get_rng_state())
            try:
                named = fault()
            except Exception:  # an exception is a name
                named = True
            torch.set_rng_state(state)
        words = ("tied", "tie_word", "missing", "unexpected", "Unexpected", "requires_grad", "merged")
        named = named or any(word in str(warning.message) for warning in caught for word in words)
        rows.append(row(str(fault.__doc__).splitlines()[0], float(named)))
    return rows
