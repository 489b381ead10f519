"""Adapters that run and do nothing: `certify` names them, and is silent about healthy ones."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import glora
from glora import GLoRAConfig, LayerConfig, all_layer_configs, presets
from glora.layer.wrappers import AdaptedLayer
from glora.tuning import certify
from glora.tuning.certificate import Certificate
from tests.glora.models import perturb
from tests.museum import models
from tests.museum.case import Case, parametrize
from tests.museum.reports import REPORTS, UNSTATED


class Checkpointed(nn.Module):
    """Reentrant checkpointing whose input needs no gradient: nothing inside gets one."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return checkpoint(self.body, x, use_reentrant=True) if self.training else self.body(x)


def says(certificate: Certificate, verdict: str, *layers: str) -> None:
    assert certificate.exit_code == 1, str(certificate)
    assert set(layers) <= set(certificate.named(verdict)), str(certificate)
    assert all(layer in str(certificate) for layer in layers)


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
def checkpointing_is_dead() -> None:
    import warnings

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "None of the inputs have requires_grad")
        model = models.trained(Checkpointed(models.plain()))
        says(glora.certify(model, models.points(), quick=True), "dead", "body.0", "body.2")


class Detached(nn.Module):
    """One branch under no_grad."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            y = self.two(x)
        return self.one(x) + y


def detached_branch_is_dead() -> None:
    models.seeded()
    says(glora.certify(models.trained(Detached()), models.points(), quick=True), "dead", "two")


def frozen_adapter_is_untrained() -> None:
    model = models.bert()
    glora.attach(model, presets.lora(2, target=r"(query|value)$"))
    layer = "bert.encoder.layer.0.attention.self.query"
    says(glora.certify(model, {"input_ids": models.ids()}, quick=True), "untrained", layer)


def one_step_moves_nothing() -> None:
    model = models.trained(models.plain())
    model[2].adapters["default"].B.left.data.zero_()
    says(glora.certify(model, models.points(), quick=True), "untrained", "2")


def gpt2_without_training() -> None:
    model = models.gpt2()
    glora.attach(model, presets.alpha_lora(2, target=r"c_attn$"))
    says(glora.certify(model, {"input_ids": models.ids()}, quick=True), "untrained", "transformer.h.0.attn.c_attn")


def merged_by_nobody() -> None:
    model = models.trained(models.plain())
    certificate = glora.certify(model, models.points())
    assert certificate.holds, str(certificate)
    assert "exported" in str(certificate)
    assert "reloaded" in str(certificate)


CASES = [
    Case(
        "cloneofsimo/lora#26",
        "with gradient checkpointing LoRA's up matrices stay zero through training",
        checkpointing_is_dead,
        "gradients of certify",
    ),
    Case(
        "kohya-ss/sd-scripts#91",
        "with gradient checkpointing every LoRA-up module of the text encoder is 0.0",
        detached_branch_is_dead,
        "gradients of certify",
    ),
    Case(
        "huggingface/trl#3926",
        "the trainer freezes the adapter that it is given; the gradient norm is 0",
        frozen_adapter_is_untrained,
        "movement in certify",
        "Bert",
    ),
    Case(
        "huggingface/peft#793",
        "after training the model is exactly the base: lora_B is zero",
        one_step_moves_nothing,
        "movement in certify",
    ),
    Case(
        "huggingface/trl#6700",
        "no parameter trains before the trainer is made, training ends as if all were well, and the saved file is the "
        "one it began with",
        gpt2_without_training,
        "movement in certify",
        "GPT2",
    ),
    Case(
        "huggingface/peft#2322",
        "merge_and_unload seems to give back the base weights only",
        merged_by_nobody,
        "merging",
    ),
]


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
@parametrize(CASES)
def test_certify_names_what_does_nothing(case, switched_off):
    case.check(switched_off)


def test_the_museum_is_large_enough():
    from tests.museum import test_loading, test_merging, test_parents, test_state, test_wrappers

    cases = [c for m in (test_loading, test_merging, test_parents, test_state, test_wrappers) for c in m.CASES] + CASES
    names = [case.report for case in cases]
    assert len(names) == len(set(names)) >= 40
    assert len({case.without for case in cases}) >= 15
    assert len({case.model for case in cases} - {""}) >= 10
    assert set(names) == REPORTS.keys()
    assert all(report.title and report.version for report in REPORTS.values())
    assert all(len(case.said) > 30 and case.said != REPORTS[case.report].title for case in cases)
    whole = sum(report.whole for report in REPORTS.values())
    page = (Path(__file__).parents[2] / "docs" / "silent.md").read_text(encoding="utf-8")
    stated = sum(report.version != UNSTATED for report in REPORTS.values())
    assert f"{len(REPORTS)} reports" in page
    assert f"{whole} were read whole" in page
    assert f"{stated} state a version" in page


class Shared(nn.Module):
    """One layer called twice, one that is unused, dropout, and a branch for training."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.unused = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 6)
        self.dropout = nn.Dropout(0.3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.two(torch.tanh(self.one(self.dropout(self.one(x)))))


@pytest.mark.parametrize("config", list(all_layer_configs(rank=2))[1::43], ids=lambda config: config.summary)
def test_healthy_adapters_are_certified(config: LayerConfig):
    models.seeded()
    model = Shared()
    glora.attach(model, GLoRAConfig(**{**config.to_dict(), "dropout": 0.2}, target="all-linear"))
    perturb(model)
    certificate = glora.certify(model, models.points())
    assert certificate.holds, str(certificate)
    assert certificate.named("not reached") == ["unused"]
    assert certificate.to_dict()["exit_code"] == 0


def test_certify_leaves_the_model_as_it_was():
    model = models.trained(models.plain())
    glora.merge(model)
    model.train()
    before = {key: value.clone() for key, value in model.named_parameters()}
    flags = {key: value.requires_grad for key, value in model.named_parameters()}
    glora.certify(model, models.points())
    assert model.training
    assert model[0].merged == "default"
    assert all(torch.equal(value, before[key]) for key, value in model.named_parameters())
    assert {key: value.requires_grad for key, value in model.named_parameters()} == flags


def test_a_stored_probe_certifies_again(tmp_path):
    from glora.tuning import probe

    model = models.trained(models.plain())
    glora.save(model, tmp_path)
    probe.store(tmp_path, models.points(), probe.outputs(model, models.points()))
    batch, stored = probe.load(tmp_path)
    other = models.plain()
    glora.load(other, tmp_path)
    assert glora.certify(other, batch, stored=stored, reference=models.plain()).holds
    other[0].adapters["default"].B.left.data.add_(0.5)
    certificate = glora.certify(other, batch, stored=stored)
    assert certificate.exit_code == 1
    assert "outputs = those stored" in str(certificate)
    file = next(tmp_path.glob("probe-*.safetensors"))
    file.write_bytes(file.read_bytes()[:-4])
    with pytest.raises(ValueError, match="damaged or truncated"):
        probe.load(tmp_path)


def test_the_command_certifies_a_model_and_an_adapter(tmp_path, capsys):
    import json

    from safetensors.torch import save_file

    from glora.cli import main

    base = models.bert()
    base.save_pretrained(tmp_path / "base")
    glora.save(models.trained(base, r"(query|value)$"), tmp_path / "adapter")
    words = ["certify", str(tmp_path / "base"), str(tmp_path / "adapter")]
    assert main(words) == 2
    assert "has no stored probe" in capsys.readouterr().err
    save_file({"input_ids": models.ids()}, tmp_path / "probe.safetensors")
    assert main([*words, "--batch", str(tmp_path / "probe.safetensors"), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["holds"]
    assert "with the base, and the outputs" in str(answer["statements"])
    assert main(words) == 0  # on the probe that the first certification left there
    assert "outputs = those stored with the adapter" in capsys.readouterr().out


class Slow(nn.Module):
    """A model whose calls take a second each on a clock of its own."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body, self.now = body, 0.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.now += 1.0
        return self.body(x)


@pytest.mark.parametrize(
    ("seconds", "done"),
    [(1.5, 1), (2.5, 2), (5, 3), (30, 5)],
)
def test_what_does_not_fit_into_the_time_is_said(seconds, done, monkeypatch):
    model = models.trained(Slow(models.plain()))
    monkeypatch.setattr(certify, "monotonic", lambda: model.now)
    certificate = glora.certify(model, models.points(), quick=True, seconds=seconds)
    assert model.now <= seconds
    left = {statement.claim for statement in certificate.statements if "left out" in statement.detail}
    assert len(certificate.statements) == 4
    assert len(left) == {1: 3, 2: 2, 3: 1, 5: 0}[done], str(certificate)
    assert certificate.holds is (None if left else True)
    assert all(claim in str(certificate) for claim in left)


def test_the_time_of_large_weights_is_judged_before_merging(monkeypatch):
    model = models.trained(Slow(models.plain()))
    original = AdaptedLayer.merged_parameters

    def merged_parameters(self, name):
        model.now += 4.0
        return original(self, name)

    monkeypatch.setattr(AdaptedLayer, "merged_parameters", merged_parameters)
    monkeypatch.setattr(certify, "monotonic", lambda: model.now)
    certificate = glora.certify(model, models.points(), quick=True, seconds=16)
    assert model.now <= 16
    assert [s.claim for s in certificate.statements if s.holds is None] == ["merged = unmerged"]
