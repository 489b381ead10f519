"""The ``glora certify`` command, as `glora.cli` adds it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

    from glora.tuning.probe import Batch

HELP = "prove on a probe batch that an adapter acts, merges, exports, reloads and leaves the base untouched"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give the subcommand its arguments."""
    parser.add_argument("what", metavar="RUN|MODEL", help="folder of a run, or a transformers model (with ADAPTER)")
    parser.add_argument("adapter", metavar="ADAPTER", nargs="?", help="folder of an adapter for MODEL")
    parser.add_argument(
        "--batch",
        metavar="FILE.safetensors",
        help="the model's inputs by name (or input.0, input.1 …); the adapter's stored probe, or examples of the run's "
        "task, without it",
    )
    parser.add_argument(
        "--quick", action="store_true", help="leave out export, reload and detach, which copy the model"
    )
    parser.add_argument("--no-store", action="store_true", help="do not put the probe beside the adapter")


def run(arguments: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Certify; returns the figures and the page to print.

    Raises:
        ValueError: there is no adapter, or no probe to certify it on.
    """
    from glora.model import checkpoint
    from glora.tuning import probe
    from glora.tuning.certify import certify

    if arguments.adapter is None:
        model, reference, folder, batch = _of_run(arguments.what)
    else:
        folder = Path(arguments.adapter)
        reference, batch = _pretrained(arguments.what), None
        model = _pretrained(arguments.what)
        checkpoint.load(model, folder)
    kept = probe.load(folder)
    stored = None
    if arguments.batch is not None:
        batch = _read(arguments.batch)
    elif kept is not None:
        batch, stored = kept
    if batch is None:
        raise ValueError(
            f"the adapter in {str(folder)!r} has no stored probe, so there is nothing to certify it on; give "
            "--batch FILE.safetensors with the model's inputs by name"
        )
    certificate = certify(model, batch, reference=reference, stored=stored, quick=arguments.quick)
    if stored is None and not arguments.no_store and certificate.holds:
        probe.store(folder, batch, probe.outputs(model, batch))
    return certificate.to_dict(), str(certificate)


def _of_run(what: str) -> tuple[nn.Module, nn.Module, Path, Batch]:
    """The model of a run, its base, its adapter's folder, and examples of its task."""
    from glora.runs.folder import Run
    from glora.tuning import probe
    from glora.tuning.restore import restore

    run = Run.open(what)
    if not run.adapter.is_dir() and (run.folder / "retrained").is_dir():
        run = Run.open(run.folder / "retrained")
    model, task = restore(run)
    if not run.adapter.is_dir():
        raise ValueError(f"the run in {what!r} trained the model in full; there is no adapter to certify")
    return model, task.build_model(run.config.training.seed), run.adapter, probe.of_task(model, task)


def _pretrained(name: str) -> nn.Module:
    import torch
    import transformers

    from glora.tasks.hub import from_hub

    try:
        config = transformers.AutoConfig.from_pretrained(name, **from_hub())
        kind = getattr(transformers, (config.architectures or ["AutoModel"])[0], transformers.AutoModel)
        return kind.from_pretrained(name, dtype=torch.float32, **from_hub())
    except (OSError, ValueError) as error:
        raise ValueError(f"{name!r} is no run and no model that transformers can read: {error}") from None


def _read(file: str) -> Batch:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from glora.tuning import probe

    try:
        return probe.batch_of(load_file(file))
    except (OSError, SafetensorError) as error:
        raise ValueError(f"--batch {file!r} is no safetensors file: {error}") from None
