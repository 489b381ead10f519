"""Adapters on disk: the trained numbers in one safetensors file, everything else in one JSON file.

``adapter.json`` names the tensor file by its digest and is replaced last, so a folder holds either the old
adapter or the new one, whatever interrupts the writing.  Loading checks everything before it touches the
model.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from glora._checks import of_kind
from glora._digests import not_finite
from glora._files import as_path, read_text, require_regular, sealed, unsealed, write_atomic, write_json
from glora.config import LayerConfig
from glora.layer.adapter import Adapter
from glora.layer.geometry import is_plain, op_for
from glora.model.attaching import attach_selection
from glora.model.balancing import check_steps, restore_steps, steps_of
from glora.model.merging import unmerged
from glora.model.report import Report, describe
from glora.model.state import (
    adapted_modules,
    buffers_of,
    get_state,
    require_adapter,
    require_intact,
    require_state,
    set_buffers,
    unwrap,
)
from glora.model.targets import Selection, base_modules, is_inside

FORMAT = "glora adapter"
#: 1 had no steps (all are 1), no buffers and no frozen norms.
VERSION = 2
INDEX = "adapter.json"
# Values kept of every base parameter to recognise the base model by.
_SAMPLES = 4


def save(model: nn.Module, folder: str | Path, name: str | None = None) -> Path:
    """Write an adapter: its support tensors and its saved modules, and nothing of the base model.

    Args:
        model: a model with adapters; one may be merged.
        folder: where to write; an adapter that is there is replaced, atomically.
        name: which adapter; the active one if None.

    Returns:
        Path of the JSON file.

    Raises:
        ValueError: there is no such adapter, or one of its layers was replaced since.
        OSError: the folder cannot be written; what was in it stays.

    >>> import glora
    >>> import os, tempfile
    >>> from torch import nn
    >>> model = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 4))
    >>> report = glora.attach(model, glora.presets.lora(4, target=["0"]))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = glora.save(model, folder)
    ...     files = os.listdir(folder)
    >>> len(files)  # adapter.json and its safetensors
    2
    """
    state = require_state(model)
    name = require_adapter(state, name or state.active)
    selection, folder = state.adapters[name], as_path("folder", folder)
    require_intact(model, name)
    tensors, buffers = adapter_tensors(model, name), buffers_of(model, name)
    with unmerged(model):
        base = _fingerprint(unwrap(model), selection.saved)
    configs = list(dict.fromkeys(selection.layers.values()))
    numbers = {config: number for number, config in enumerate(configs)}
    entry, data = encoded("adapter", tensors)
    index: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "name": name,
        **entry,
        "configs": [config.to_dict() for config in configs],
        "layers": {key: numbers[config] for key, config in selection.layers.items()},
        "modules_to_save": list(selection.saved),
        "steps": steps_of(model, name),
        "base": base,
    }
    write_atomic(folder / index["tensors"], data)
    if selection.norms != "trained":
        index["norms"] = selection.norms
    if buffers:
        index["buffers"], data = encoded("buffers", buffers)
        write_atomic(folder / index["buffers"]["tensors"], data)
    write_index(folder, index)
    return folder / INDEX


def write_index(folder: Path, index: dict[str, Any]) -> None:
    """Write ``adapter.json`` and remove the tensor files that it does not name."""
    write_json(folder / INDEX, sealed(index))
    for kind, entry in (("adapter", index), *((kind, index.get(kind, {})) for kind in ("buffers", "probe"))):
        for stale in folder.glob(f"{kind}-????????????.safetensors"):
            if stale.name != entry.get("tensors"):
                stale.unlink()


def encoded(kind: str, tensors: dict[str, Tensor]) -> tuple[dict[str, str], bytes]:
    """How ``adapter.json`` refers to a tensor file, by name and digest, and the file's bytes."""
    data = _encode(tensors)
    digest = hashlib.sha256(data).hexdigest()
    return {"tensors": f"{kind}-{digest[:12]}.safetensors", "sha256": digest}, data


def load(model: nn.Module, folder: str | Path, name: str | None = None, *, check_base: bool = True) -> Report:
    """Attach an adapter from a folder that `save` wrote, and make it the active one.

    Args:
        model: the base model, bare or with other adapters.  If an adapter of this name and structure is
            attached already, its numbers are replaced.
        folder: the folder.
        name: name of the adapter in this model; the one it was saved under if None.
        check_base: refuse a base model whose weights are not those the adapter was trained on.

    Returns:
        The same report as `glora.attach`.

    Raises:
        ValueError: the files are damaged or of a newer version, or the model is not the one the adapter was
            trained on; the message says what differs and the model is left as it was.
        FileNotFoundError: there is no adapter in the folder.

    >>> import glora
    >>> import tempfile
    >>> from torch import nn
    >>> model = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 4))
    >>> report = glora.attach(model, glora.presets.lora(4, target=["0"]))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = glora.save(model, folder)
    ...     _ = glora.detach(model)
    ...     _ = glora.load(model, folder)
    >>> type(model[0]).__name__
    'AdaptedLayer'
    """
    of_kind("check_base", check_base, bool)
    state = get_state(model)
    if state is not None and state.merged is not None:
        raise ValueError(f"adapter {state.merged!r} is merged into the weights: unmerge it first (glora.unmerge)")
    folder = as_path("folder", folder)
    index = read_index(folder)
    tensors = read_tensors(folder, index)
    inner = unwrap(model)
    try:
        configs = [LayerConfig.from_dict(values) for values in index["configs"]]
        layers = {key: configs[number] for key, number in index["layers"].items()}
        selection = Selection(layers, tuple(index["modules_to_save"]), (), norms=index.get("norms", "trained"))
        buffers = read_tensors(folder, index["buffers"]) if "buffers" in index else {}
        name, base, steps = name or index["name"], index["base"], dict(index.get("steps", {}))
    except (KeyError, TypeError, IndexError, AttributeError, ValueError) as error:
        raise ValueError(f"{folder / INDEX} is damaged: {error!r}") from error
    problems = _mismatches(inner, selection, tensors)
    if problems:
        raise ValueError(_listing(f"the adapter in {folder} does not fit this model", problems))
    check_steps(selection.layers, steps)
    if check_base:
        problems = _differences(base, _fingerprint(inner, selection.saved))
        if problems:
            raise ValueError(
                _listing(f"the adapter in {folder} was trained on another base model", problems)
                + "\ncheck_base=False loads it anyway"
            )
    if state is not None and name in state.adapters and _same(state.adapters[name], selection):
        report = describe(inner, selection)
    else:
        # A generator of its own: loading does not disturb the caller's random numbers.
        report = attach_selection(inner, selection, name, generator=torch.Generator())
    restore_steps(inner, steps, name)
    with torch.no_grad():
        for key, target in adapter_tensors(inner, name).items():
            target.copy_(tensors[key])
    set_buffers(inner, name, buffers)
    return report


def adapter_tensors(model: nn.Module, name: str) -> dict[str, Tensor]:
    """The numbers of one adapter by name, ``<layer>.<A…E>.<part>`` and ``<saved module>.<parameter>``.

    These are its trainable parameters, a frozen α, and the buffers (if any) of modules trained in full.
    """
    found: dict[str, Tensor] = {}
    for key, module in adapted_modules(model):
        if name in module.adapters:
            # An adapted layer inside another wrapper does not occur, so the keys are those of the base model.
            found |= {f"{key}.{part}": tensor for part, tensor in module.adapters[name].state_dict().items()}
    return found


def _same(one: Selection, other: Selection) -> bool:
    return one.layers == other.layers and one.saved == other.saved and one.norms == other.norms


def _encode(tensors: dict[str, Tensor]) -> bytes:
    from safetensors.torch import save as encode

    # A scale that layers share is one tensor under several names, which the format takes only as copies.
    return encode({key: tensor.detach().to("cpu", copy=True).contiguous() for key, tensor in tensors.items()})


def read_index(folder: Path) -> dict[str, Any]:
    """The contents of ``adapter.json``.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is damaged, of another format or of a newer version.
    """
    path = folder / INDEX
    if not path.is_file():
        hint = ""
        if (folder / "adapter_config.json").is_file():
            hint = "; it holds a PEFT checkpoint, which glora.peft_checkpoints.load reads"
        elif (folder / "model.safetensors").is_file() and _is_training_checkpoint(folder / "model.safetensors"):
            hint = (
                "; it holds a training checkpoint of a model with an adapter, which from_pretrained reads at random: "
                "build the base model, glora.attach the same configuration, then "
                "model.load_state_dict(safetensors.torch.load_file(FOLDER/'model.safetensors'))"
            )
        raise FileNotFoundError(f"no {INDEX} in {folder}{hint}")
    try:
        index = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:  # JSON errors are ValueErrors
        raise ValueError(f"{path} is damaged: {error}") from error
    if not isinstance(index, dict) or index.get("format") != FORMAT:
        raise ValueError(f"{path} is not an adapter of this package")
    version = index.get("version")
    if isinstance(version, bool) or not isinstance(version, int) or not 1 <= version <= VERSION:
        raise ValueError(f"{path} has version {index.get('version')!r}, this package reads up to {VERSION}")
    return unsealed(index, path, "save the adapter again")


def _is_training_checkpoint(path: Path) -> bool:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return any(".adapters." in key for key in file.keys())  # noqa: SIM118 (no mapping)
    except SafetensorError:
        return False


def read_tensors(folder: Path, index: dict[str, Any]) -> dict[str, Tensor]:
    """The tensors of the file that an entry of ``adapter.json`` names.

    Raises:
        ValueError: the file is missing, or its digest is not the entry's.
    """
    from safetensors.torch import load as decode

    path = folder / Path(str(index.get("tensors"))).name
    if not path.is_file():
        raise ValueError(f"{path} is missing; {folder / INDEX} refers to it")
    require_regular(path)
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != index.get("sha256"):
        raise ValueError(f"{path} is damaged or truncated: its digest is not the one in {INDEX}")
    tensors = decode(data)
    bad = not_finite(tensors)
    if bad:
        raise ValueError(f"{path} holds numbers that are not finite, in {bad[0]}: the training had diverged")
    return tensors


def _mismatches(model: nn.Module, selection: Selection, tensors: dict[str, Tensor]) -> list[str]:
    """What keeps the tensors from being put into the model."""
    modules = dict(base_modules(model))
    problems: list[str] = []
    expected: dict[str, torch.Size] = {}
    parts: dict[Any, dict[str, torch.Size]] = {}  # layers that are alike have the same ones
    for key, config in selection.layers.items():
        module = modules.get(key)
        if module is None or op_for(module) is None:
            problems.append(f"layer {key}: " + ("missing" if module is None else f"is {type(module).__name__}"))
            continue
        kind = config, type(module), is_plain(module), module.weight.shape, module.bias is None
        if kind not in parts:
            found = Adapter(config, module, torch.Generator()).state_dict()
            parts[kind] = {part: tensor.shape for part, tensor in found.items()}
        expected |= {f"{key}.{part}": shape for part, shape in parts[kind].items()}
    for key in selection.saved:
        if key not in modules:
            problems.append(f"module {key}: missing")
        else:
            expected |= {f"{key}.{part}": tensor.shape for part, tensor in modules[key].state_dict().items()}
    if problems:
        return problems
    for key in sorted(expected.keys() | tensors.keys()):
        if key not in tensors:
            problems.append(f"{key}: not in the file")
        elif key not in expected:
            problems.append(f"{key}: in the file, but the model has no place for it")
        elif tensors[key].shape != expected[key]:
            problems.append(f"{key}: shape {tuple(tensors[key].shape)}, the model needs {tuple(expected[key])}")
    return problems


def _fingerprint(model: nn.Module, saved: tuple[str, ...]) -> dict[str, Any]:
    """Shapes and a few values of every base parameter outside the saved modules, and of every running statistic."""
    parameters: dict[str, Any] = {}
    statistics: dict[str, Any] = {}
    state = get_state(model)
    for key, module in base_modules(model):
        if any(is_inside(key, parent) for parent in saved):
            continue
        prefix = f"{key}." if key else ""
        for part, parameter in module._parameters.items():
            if parameter is not None:
                parameters[prefix + part] = _samples(parameter)
        for part in ("running_mean", "running_var"):
            buffer = module._buffers.get(part)
            if buffer is not None:
                known = {} if state is None else state.base_buffers
                statistics[prefix + part] = _samples(known.get(prefix + part, buffer))
    found = {"class": type(model).__name__, "parameters": parameters}
    return {**found, "statistics": statistics} if statistics else found


def _samples(tensor: Tensor) -> dict[str, Any]:
    values = None
    if not tensor.is_meta and tensor.is_floating_point() and tensor.numel():
        # Whole numbers: a float32 cannot tell the last positions of a language model's embedding apart.
        positions = torch.arange(_SAMPLES) * (tensor.numel() - 1) // (_SAMPLES - 1)
        values = tensor.detach().flatten()[positions.to(tensor.device)].double().tolist()
    return {"shape": list(tensor.shape), "values": values}


def _differences(wanted: dict[str, Any], found: dict[str, Any]) -> list[str]:
    """What differs between two fingerprints; values may differ by a rounding to bfloat16."""
    problems = []
    if wanted["class"] != found["class"]:
        problems.append(f"class {found['class']}, trained on {wanted['class']}")
    old, new = wanted["parameters"], found["parameters"]
    if "statistics" in wanted:  # not in older files
        old, new = old | wanted["statistics"], new | found.get("statistics", {})
    for key in sorted(old.keys() | new.keys()):
        if key not in new or key not in old:
            problems.append(f"{key}: only in the " + ("model" if key not in old else "adapter's base"))
        elif old[key]["shape"] != new[key]["shape"]:
            problems.append(f"{key}: shape {new[key]['shape']}, trained on {old[key]['shape']}")
        elif old[key]["values"] is not None and new[key]["values"] is not None:
            pairs = zip(old[key]["values"], new[key]["values"], strict=True)
            if any(abs(a - b) > 1e-2 * abs(a) + 1e-6 for a, b in pairs):
                problems.append(f"{key}: other values")
    return problems


def _listing(title: str, problems: list[str], limit: int = 8) -> str:
    lines = [f"{title}:", *(f"  {problem}" for problem in problems[:limit])]
    if len(problems) > limit:
        lines.append(f"  … and {len(problems) - limit} more")
    return "\n".join(lines)
