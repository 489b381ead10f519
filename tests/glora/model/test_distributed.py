"""Training on two CPU processes (gloo) gives what one process gives on the whole batch."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from torch import multiprocessing, nn

import glora
from glora import presets
from glora.model.balancing import steps_of
from glora.runs.config import RunConfig
from glora.tuning.steps import measure_steps
from glora.tuning.tune import tune
from tests.glora.fixtures.v1 import scenes
from tests.glora.models import images, tiny_vit

STEPS = 3


def model_to_train() -> nn.Module:
    model = tiny_vit()
    generator = torch.Generator().manual_seed(1)
    glora.attach(model, presets.alpha_lora(2, modules_to_save=["head"]), generator=generator)
    return model


def train(model: nn.Module, x: torch.Tensor, labels: torch.Tensor, backward) -> None:
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    for _ in range(STEPS):
        optimizer.zero_grad()
        backward(nn.functional.cross_entropy(model(x), labels))
        optimizer.step()


def worker(rank: int, port: int, folder: str, library: str) -> None:
    os.environ |= {
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2",
        "GLOO_SOCKET_IFNAME": "lo", "ACCELERATE_USE_CPU": "true",
    }  # fmt: skip
    torch.set_num_threads(1)
    model, x, labels = model_to_train(), images(8), torch.arange(8) % 3
    half = slice(4 * rank, 4 * rank + 4)
    if library == "accelerate":
        from accelerate import Accelerator

        accelerator = Accelerator(cpu=True)
        wrapped = accelerator.prepare(model)
        train(wrapped, x[half], labels[half], accelerator.backward)
    else:
        torch.distributed.init_process_group("gloo", rank=rank, world_size=2)
        wrapped = nn.parallel.DistributedDataParallel(model)
        train(wrapped, x[half], labels[half], torch.Tensor.backward)
    glora.save(wrapped, f"{folder}/{rank}")
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


@pytest.mark.whole
@pytest.mark.parametrize("library", ["torch", "accelerate"])
def test_two_processes_train_like_one(tmp_path, library):
    pytest.importorskip(library)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    multiprocessing.spawn(worker, (port, str(tmp_path), library), nprocs=2)
    alone = model_to_train()
    train(alone, images(8), torch.arange(8) % 3, torch.Tensor.backward)
    outputs = []
    for rank in range(2):
        model = tiny_vit()
        glora.load(model, tmp_path / str(rank))
        outputs.append(model(images(8)))
    assert torch.equal(*outputs)
    torch.testing.assert_close(outputs[0], alone(images(8)), rtol=1e-4, atol=1e-5)


def steps_worker(rank: int, port: int, folder: str) -> None:
    """A run in two processes that see different batches; each notes the steps it trains with."""
    os.environ |= {
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2",
        "GLOO_SOCKET_IFNAME": "lo", "ACCELERATE_USE_CPU": "true",
    }  # fmt: skip
    torch.set_num_threads(1)
    values = scenes.config("run_custom")
    values["training"] |= {"steps": 2}
    values["method"] |= {"A": "vector", "alpha": 1.5}  # a number that does not start at zero

    def measured(model: nn.Module, *rest: Any) -> Any:
        found = measure_steps(model, *rest)
        numbers = {name: p.tolist() for name, p in model.named_parameters() if name.endswith((".value", ".right"))}
        Path(folder, f"{rank}.json").write_text(json.dumps([found, steps_of(model), numbers]))
        return found

    with scenes.at(Path(folder), scenes.Task()), mock.patch("glora.tuning.tune.measure_steps", measured):
        if rank:  # what another process would measure is another thing
            with mock.patch("glora.tuning.steps.balance", side_effect=AssertionError("only the main process measures")):
                tune(RunConfig.from_dict(values))
        else:
            tune(RunConfig.from_dict(values))
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_the_main_process_measures_steps_and_tells_the_other(tmp_path):
    pytest.importorskip("accelerate")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    multiprocessing.spawn(steps_worker, (port, str(tmp_path)), nprocs=2)
    main, other = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    assert main == other
    assert main[0]["layers"] == main[1]
    stored = json.loads((tmp_path / "run_custom" / "adapter" / "adapter.json").read_text())
    assert stored["steps"] == main[1]
    noted = json.loads((tmp_path / "run_custom" / "steps.json").read_text())
    assert {key: noted[key] for key in main[0]} == main[0]
