"""Training on two CPU processes (gloo) gives what one process gives on the whole batch."""

from __future__ import annotations

import os
import socket

import pytest
import torch
from torch import multiprocessing, nn

import glora
from glora import presets
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
