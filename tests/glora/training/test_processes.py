"""Devices and processes: what a run asks for is what it gets, and one process speaks for all."""

from __future__ import annotations

import pytest
from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState

from glora.training.processes import is_main_process, processes


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("ACCELERATE_USE_CPU", raising=False)
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def asked_for_cpu() -> bool:
    return PartialState()._cpu


def test_a_second_run_may_ask_for_another_device() -> None:
    """A machine without a GPU has one device; what is remembered is what was asked for."""
    Accelerator(cpu=True)
    Accelerator(cpu=False)
    assert asked_for_cpu()  # accelerate's own memory
    for device, cpu in (("auto", False), ("cpu", True), ("auto", False)):
        assert processes(device).num_processes == 1
        assert asked_for_cpu() == cpu
        Accelerator(cpu=cpu, mixed_precision="no")


def test_one_device_is_not_set_up_twice() -> None:
    accelerator = Accelerator(cpu=True, mixed_precision="bf16")
    processes("cpu")
    assert accelerator.mixed_precision == "bf16"


def test_the_environment_may_ask_for_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    accelerator = Accelerator(mixed_precision="bf16")
    processes("auto")
    assert accelerator.mixed_precision == "bf16"


def test_connected_processes_keep_their_device() -> None:
    processes("cpu").num_processes = 2
    processes("cpu")
    with pytest.raises(ValueError, match=r"training.device='auto', but these 2 processes work on 'cpu' already"):
        processes("auto")


def test_the_first_process_prints(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    assert is_main_process()
    for rank, expected in (("0", True), ("1", False)):
        monkeypatch.setenv("RANK", rank)
        assert is_main_process() == expected
