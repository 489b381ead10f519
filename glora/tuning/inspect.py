"""What lies in a folder: a run, an adapter, or a model that could be adapted."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from glora.config import LayerConfig
from glora.model.checkpoint import INDEX
from glora.runs.folder import Run


def inspect(what: str) -> dict[str, Any]:
    """A description of a run's folder, an adapter's folder, or a transformers model (folder or hub name).

    Raises:
        ValueError: it is none of these.
    """
    folder = Path(what)
    if (folder / "run.json").is_file():
        return _run(Run.open(folder))
    if (folder / INDEX).is_file():
        return {"kind": "adapter", **_adapter(folder)}
    return _model(what)


def _run(run: Run) -> dict[str, Any]:
    config, lines = run.config, run.metrics
    found: dict[str, Any] = {
        "kind": "run",
        "task": dict(config.task),
        "method": dict(config.method),
        "complete": run.result is not None,
        "last_step": lines[-1]["step"] if lines else 0,
    }
    if run.result is not None:
        found["result"] = run.result
    if (run.folder / "steps.json").is_file():
        measured = json.loads((run.folder / "steps.json").read_text(encoding="utf-8"))
        found["steps"] = {"batch": measured["batch"], **_steps(measured["layers"])}
    if run.adapter.is_dir():
        found["adapter"] = _adapter(run.adapter)
    return found


def _adapter(folder: Path) -> dict[str, Any]:
    """Layers by structure, parameters, and mean and spread of every trained scale.

    Raises:
        ValueError: a file is damaged.
    """
    from glora.model.checkpoint import read_index, read_tensors

    try:
        index = read_index(folder)
        configs = [LayerConfig.from_dict(values).summary for values in index["configs"]]
        tensors = read_tensors(folder, index)
        steps = {layer: dict(values) for layer, values in index.get("steps", {}).items()}
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"the adapter in {str(folder)!r} is damaged: {error!r}") from None
    entries = {name[: -len(".A.value")]: tensor for name, tensor in tensors.items() if name.endswith(".A.value")}
    scales = {name: 1 + steps.get(name, {}).get("A", 1.0) * tensor for name, tensor in entries.items()}
    return {
        "layers": dict(Counter(configs[number] for number in index["layers"].values())),
        "modules_to_save": index["modules_to_save"],
        "numbers": sum(tensor.numel() for tensor in tensors.values()),
        "steps": _steps(steps),
        "alpha": {
            name: f"mean {float(alpha.mean()):.4f}, spread {float(alpha.std(correction=0)):.4f}"
            for name, alpha in scales.items()
        },
    }


def _steps(steps: dict[str, dict[str, float]]) -> dict[str, str]:
    """The factors of each support tensor, by the kind of layer; empty where all are 1 ("raw")."""
    found: dict[str, list[float]] = {}
    for layer, values in steps.items():
        for tensor, value in values.items():
            found.setdefault(f"{layer.rpartition('.')[2]} {tensor}", []).append(value)
    return {
        key: f"{min(values):.3g}" + (f" to {max(values):.3g}" if len(values) > 1 else "")
        for key, values in sorted(found.items())
    }


def _model(name: str) -> dict[str, Any]:
    """Linear layers of a model by the last part of their name, with what the presets would train."""
    import torch
    import transformers

    from glora import presets
    from glora.model.attaching import count_parameters
    from glora.tasks.hub import from_hub

    try:
        config = transformers.AutoConfig.from_pretrained(name, **from_hub())
    except (OSError, ValueError) as error:
        raise ValueError(f"{name!r} is no run, no adapter and no model that transformers can read: {error}") from None
    with torch.device("meta"):
        model = transformers.AutoModel.from_config(config)
    makers = {"lora": presets.lora(), "alpha_lora": presets.alpha_lora(), "glora": presets.glora()}
    reports = {preset: count_parameters(made, model) for preset, made in makers.items()}
    shapes: dict[str, str] = {}
    for layer in reports["lora"].layers:
        shapes.setdefault(layer.type, f"{layer.out_features}×{layer.in_features}")
    counts = Counter(layer.type for layer in reports["lora"].layers)
    return {
        "kind": "model",
        "class": type(model).__name__,
        "parameters": reports["lora"].base_parameters,
        "linear_layers": {role: f"{counts[role]} of {shape}" for role, shape in shapes.items()},
        "trained_by": {preset: report.adapter_parameters for preset, report in reports.items()},
    }
