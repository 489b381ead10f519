"""Bad values for every argument of the public functions, and for every key of every shipped configuration.

What comes back is an answer, or a ``ValueError`` (``OSError`` for files): never another exception, never a long wait.
"""

from __future__ import annotations

import random
import signal
import time
import tomllib
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch

import glora
import rmt
from glora.runs.config import RunConfig
from glora.runs.shipped import resolve, shipped
from glora.searching import SearchRun
from glora.tasks import make_task
from glora.tuning.methods import configuration

#: Of every kind that Python, NumPy or TOML can bring.
BAD: tuple[Any, ...] = (
    *(None, True, False, "", "x", "1", "no", "\ud800", b"1", [], {}, (), set(), object(), len, [None], ["a", 1]),
    *(float("nan"), float("inf"), -float("inf"), -1, 0, 1, 2, 0.5, -0.5, 1.5, 1e308, -1e308, 1e-308, 10**9, 10**30),
    *(np.nan, np.array(["a"]), np.array([1j, 2j]), np.zeros((2, 3, 4)), np.array([]), np.array([None]), [[1, 2], [3]]),
    *(np.float32(1.0), np.bool_(True), {"a": 1}, [1.0, 2.0], -(10**30), 3 + 4j, range(3), Exception),
)
#: Arguments that may be functions of the user, which fail in their own way.
FUNCTIONS = ("noise", "target", "function")
#: Of one such attack, so that all of them together end in 20 minutes.
MOST_SECONDS = 240.0
ANSWERS = (ValueError, OSError, MemoryError)
T = rmt.Transfer(p=30, n=20, N=60, mu=1.5, mu_perp=1.0, beta=0.6, gamma=1.0, gamma_source=0.4)
G = rmt.GaussianTransfer(
    n=20, gamma=1.0, mean=np.ones(4), covariance=np.ones(4), source=rmt.FixedSource(vector=np.ones(4))
)
MEANS = np.array([[1.0, 0.0, 0.0], [-1.0, 0.5, 0.0]])
W = np.array([1.0, 0.2, 0.1])

Call = tuple[Callable[..., Any], dict[str, Any]]


def rmt_calls(folder: Any) -> dict[str, Call]:
    """Public functions with arguments that are right."""
    ridge = {"mean": np.ones(4), "covariance": np.ones(4), "N": 50, "gamma": 1.0, "label_noise": 0.1}
    classes = {"n": 20, "gamma": 1.0, "means": MEANS, "covariances": np.ones(3)}
    draws = {"draws": 3, "seed": 0}
    fits = {"alpha": [0.0, 1.0], "draws": 2, "seed": 0, "loss": "logistic"}
    return {
        "Transfer": (rmt.Transfer, {**vars_of(T), "label_noise": 0.1, "label_noise_source": 0.1}),
        "Transfer fixed": (
            rmt.Transfer,
            {"p": 30, "n": 20, "gamma": 1.0, "mu_target": 1.0, "source": rmt.FixedSource(overlap=0.5, norm2=0.5)},
        ),
        "FixedSource": (rmt.FixedSource, {"overlap": 0.5, "norm2": 0.5}),
        "FixedSource gram": (rmt.FixedSource, {"overlap": [0.5, 0.5], "gram": np.eye(2)}),
        "FixedSource vector": (rmt.FixedSource, {"vector": W}),
        "GaussianTransfer": (rmt.GaussianTransfer, {**vars_of(G)}),
        "RidgeSource": (rmt.RidgeSource, ridge),
        "Spectrum": (rmt.Spectrum, {"values": np.ones(3), "vectors": np.eye(3)}),
        "ClassTransfer": (
            rmt.ClassTransfer,
            {
                **classes,
                "source": rmt.FixedSource(vector=W),
                "labels": (1.0, -1.0),
                "proportions": (0.4, 0.6),
                "intercept": True,
                "label_noise": 0.1,
            },
        ),
        "MulticlassTransfer": (
            rmt.MulticlassTransfer,
            {**classes, "source": MEANS, "proportions": (0.4, 0.6), "intercept": True, "per_class": True},
        ),
        "EllipticalTransfer": (rmt.EllipticalTransfer, {"base": T, "freedom": 5.0}),
        "EllipticalTransfer scales": (rmt.EllipticalTransfer, {"base": T, "scales": [0.5, 1.5], "weights": [0.5, 0.5]}),
        "SubspaceTransfer": (rmt.SubspaceTransfer, {"base": T, "rank": 5}),
        "SubspaceTransfer basis": (rmt.SubspaceTransfer, {"base": G, "basis": np.eye(4)[:, :2]}),
        "Regression": (
            rmt.Regression,
            {"n": 20, "gamma": 1.0, "target": MEANS, "source": MEANS, "noise": 0.1, "covariance": np.ones(3)},
        ),
        "GradientFlow": (rmt.GradientFlow, {"time": 1.0}),
        "PrincipalComponents": (rmt.PrincipalComponents, {"cut": 1.0}),
        "PrincipalComponents fraction": (rmt.PrincipalComponents, {"fraction": 0.5}),
        "SpectralFilter": (rmt.SpectralFilter, {"function": np.exp, "pole": -1.0}),
        "FilteredTransfer": (rmt.FilteredTransfer, {"base": T, "filter": rmt.GradientFlow(1.0)}),
        "theory": (rmt.theory, {"setting": T, "loss": "square"}),
        "accuracy": (rmt.theory(T).accuracy, {"alpha": 1.0}),
        "loss": (rmt.theory(G).variance, {"alpha": 1.0}),
        "simulate": (rmt.simulate, {"setting": T, **draws, "method": "exact", "loss": "square", "alpha": None}),
        "simulate direct": (rmt.simulate, {"setting": T, **draws, "method": "direct", "noise": "gaussian"}),
        "simulate_direct": (
            rmt.simulate_direct,
            {
                "setting": T,
                **draws,
                "gamma": None,
                "noise": "gaussian",
                "covariance": None,
                "direction": "random",
                "test_points": 5,
                "backend": "numpy",
                "device": None,
                "n_jobs": 1,
                "progress": False,
            },
        ),
        "simulate_fits": (rmt.simulate_fits, {"setting": T, **fits}),
        "simulate_running": (
            lambda **given: list(rmt.simulate_running(**given)),
            {"setting": T, "steps": [2, 3], "seed": 0, "method": "exact", "loss": "square", "alpha": None},
        ),
        "sample_exact": (rmt.sample_exact, {"setting": T, **draws, "gamma": None, "n_jobs": 1, "progress": False}),
        "grid": (rmt.grid, {"base": T, "axes": {"gamma": [0.1, 1.0]}}),
        "grid axis": (lambda values: rmt.grid(T, {"gamma": values}), {"values": [0.1, 1.0]}),
        "run_sweep": (
            lambda **given: rmt.run_sweep(out=folder / str(random.random()), **given),
            {
                "settings": [T],
                "alpha": [0.0, 1.0],
                "draws": 2,
                "seed": 0,
                "method": "exact",
                "n_jobs": 1,
                "progress": False,
                "options": None,
            },
        ),
        "joint_optimum": (rmt.joint_optimum, {"setting": T, "source_gamma": True}),
        **{
            name: (getattr(rmt, name), {"setting": T})
            for name in ("few_samples", "gamma_one", "many_samples", "many_source_samples", "ridgeless", "two_scales")
        },
        "samples_needed": (
            rmt.samples_needed,
            {"setting": T, "beat": "source", "alpha": 1.0, "loss": "square", "most": 1000},
        ),
        "source_penalty": (rmt.source_penalty, {"setting": T, "alpha": 1.0}),
        "with_penalty": (rmt.with_penalty, {"setting": G, "penalty": 1.0}),
        "load_amazon": (rmt.load_amazon, {"folder": folder}),
    }


def glora_calls(folder: Any) -> dict[str, Call]:
    """Public functions with arguments that are right; each call has a model of its own."""

    def adapted() -> torch.nn.Module:
        model = torch.nn.Sequential(torch.nn.Linear(3, 2))
        glora.attach(model, glora.presets.lora(1))
        return model

    def on(function: Callable[..., Any]) -> Callable[..., Any]:
        return lambda **given: function(adapted(), **given)

    glora.save(adapted(), folder / "adapter")
    layer = {"A": "vector", "B": "lora", "D": "vector", "rank": 2, "a_product": "elementwise", "tie_a_d": True}
    layer |= {"alpha": 1.1, "train_alpha": False, "lora_scale": 2.0, "dropout": 0.1, "init": "xavier"}
    whole = {"target": "all-linear", "overrides": {}, "modules_to_save": (), "exclude_heads": True, "steps": "raw"}
    lora = {"rank": 2, "target": "all-linear", "numerator": 2.0, "rank_stabilized": True}
    return {
        "LayerConfig": (glora.LayerConfig, {**layer, "C": "lora", "E": "vector", "recompute": False}),
        "GLoRAConfig": (glora.GLoRAConfig, {**layer, **whole, "norms": "frozen"}),
        "GLoRAConfig.from_dict": (lambda **given: glora.GLoRAConfig.from_dict(given), {**layer, **whole}),
        "lora": (glora.presets.lora, {**lora, "dropout": 0.1}),
        "alpha_lora": (glora.presets.alpha_lora, {**lora, "alpha": 1.1, "per_row": True, "train_alpha": True}),
        "glora": (glora.presets.glora, {"rank": 2, "target": "all-linear", "A": "vector"}),
        "ssf": (glora.presets.ssf, {"target": "all-linear"}),
        "attach": (
            lambda **given: glora.attach(torch.nn.Sequential(torch.nn.Linear(3, 2)), **given),
            {"config": glora.presets.lora(1), "name": "x"},
        ),
        "attach target": (
            lambda **given: glora.attach(torch.nn.Sequential(torch.nn.Linear(3, 2)), glora.presets.lora(**given)),
            {"rank": 1, "target": "0"},
        ),
        "switch": (on(glora.switch), {"name": "default"}),
        "detach": (on(glora.detach), {"name": "default"}),
        "save": (on(glora.save), {"folder": folder / "saved", "name": "default"}),
        "load": (
            lambda **given: glora.load(torch.nn.Sequential(torch.nn.Linear(3, 2)), **given),
            {"folder": folder / "adapter", "name": "y", "check_base": False},
        ),
        "count_parameters": (glora.count_parameters, {"model_or_config": adapted(), "model": None, "name": "default"}),
    }


def vars_of(setting: Any) -> dict[str, Any]:
    return {name: getattr(setting, name) for name in setting.__dataclass_fields__}


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raise TimeoutError in what takes longer."""

    def stop(*_: object) -> None:
        raise AssertionError(f"took more than {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def attempt(call: Callable[..., Any], given: Mapping[str, Any], refuse: bool = False) -> str:
    """What is wrong with how a call ends; empty if nothing is. `refuse`: a call that succeeds is wrong."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with limited(60.0):
                call(**given)
        except ANSWERS as error:
            return "" if len(str(error)) > 10 else f"says no more than {error!r}"
        except Exception as error:
            return f"{type(error).__name__}: {error}"
    return "accepted" if refuse else ""


def must_refuse(good: Any, bad: Any) -> bool:
    """Whether a value stands for another type than is asked for: texts and truth values are no numbers, and so on."""
    if isinstance(good, bool):
        return not isinstance(bad, bool | np.bool_)
    return isinstance(good, int | float | np.ndarray) and isinstance(bad, bool | str | bytes | np.bool_)


def faults(calls: Mapping[str, Call], share: float) -> list[str]:
    """What goes wrong where one argument of a call is bad, on a random part of all such calls."""
    rng, found = random.Random(0), []
    for name, (call, good) in calls.items():
        assert not attempt(call, good) or name == "load_amazon", (name, attempt(call, good))
    cases = [(name, key, bad) for name, (_, good) in calls.items() for key in good for bad in BAD]
    cases = [(name, key, bad) for name, key, bad in cases if not (key in FUNCTIONS and callable(bad))]
    end = time.monotonic() + MOST_SECONDS
    for name, key, bad in rng.sample(cases, round(share * len(cases))):
        call, good = calls[name]
        fault = attempt(call, {**good, key: bad}, must_refuse(good[key], bad))
        if fault:
            found.append(f"{name}({key}={str(bad)[:30]!r}): {fault[:200]}")
        if time.monotonic() > end:
            break
    return found


@pytest.mark.parametrize("calls", [rmt_calls, glora_calls])
def test_a_bad_argument_is_a_sentence(calls, rounds, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = faults(calls(tmp_path), 1.0 if rounds > 4 else 0.03)
    assert not found, "\n".join(found)


def keys(table: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for key, value in table.items():
        yield (*path, key), value
        if isinstance(value, dict):
            yield from keys(value, (*path, key))


def changed(table: dict[str, Any], path: tuple[str, ...], value: Any) -> dict[str, Any]:
    inner = changed(table.get(path[0], {}), path[1:], value) if len(path) > 1 else value
    return {**table, path[0]: inner}


#: What TOML can hold.
TOML = tuple(bad for bad in BAD if type(bad) in (bool, str, int, float, list, dict))


def begun(values: dict[str, Any]) -> None:
    """As far as a run goes before it touches data."""
    config = RunConfig.from_dict(values)
    task = make_task(config.task["name"], config.task_options)
    if config.method["name"] == "supernet":
        SearchRun(config)
    elif config.method["name"] != "full":
        configuration(config.method["name"], config.method_options, ("head",))
    assert task is not None


@pytest.mark.parametrize("name", sorted(shipped()))
def test_a_bad_key_of_a_shipped_configuration_is_a_sentence(name, rounds):
    values = tomllib.loads(resolve(f"pkg:{name}").read_text())
    assert not attempt(begun, {"values": values})
    rng, found = random.Random(0), []
    for path, good in keys(values):
        for bad in TOML:
            if rounds > 4 or rng.random() < 0.1:
                values_now, refuse = changed(values, path, bad), must_refuse(good, bad)
                fault = attempt(begun, {"values": values_now}, refuse)
                if fault:
                    found.append(f"{'.'.join(path)} = {bad!r}: {fault[:200]}")
    assert not found, "\n".join(found)
