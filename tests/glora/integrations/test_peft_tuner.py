"""Inside PEFT: its functions treat the tuner as one of their own."""

from __future__ import annotations

import copy
import json
import subprocess
import sys

import pytest
import torch
from torch import nn

import glora
from glora import GLoRAConfig, LayerConfig, presets
from glora.integrations import peft_checkpoints
from tests.glora.models import images, perturb, tiny_vit

peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")

import glora.peft  # noqa: E402
from glora.integrations import peft_layers  # noqa: E402
from glora.integrations.peft_tuner import GLoRAPeftConfig  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning:transformers")

STRUCTURES = {
    "alpha_lora": {"A": "vector", "D": "vector", "tie_a_d": True, "B": "lora", "rank": 2},
    "glora": {"A": "lora", "B": "lora", "C": "lora", "D": "vector", "E": "vector", "rank": 2},
    "product": {"A": "lora", "B": "lora", "C": "vector", "a_product": "matmul", "rank": 2},
}
every_structure = pytest.mark.parametrize("fields", STRUCTURES.values(), ids=STRUCTURES)


def bert() -> nn.Module:
    torch.default_generator.manual_seed(0)
    return transformers.BertForSequenceClassification(transformers.BertConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32
    )).eval()  # fmt: skip


def logits(model: nn.Module) -> torch.Tensor:
    ids = torch.randint(2, 50, (3, 7), generator=torch.Generator().manual_seed(0))
    return model(input_ids=ids).logits


def wrapped(**fields) -> nn.Module:
    config = GLoRAPeftConfig(
        target_modules=["query", "value", "dense"], exclude_modules=["classifier"], task_type="SEQ_CLS", **fields
    )
    return peft.get_peft_model(bert(), config).eval()


@every_structure
def test_the_whole_round_through_peft(fields, tmp_path):
    model, plain = wrapped(**fields), logits(bert())
    assert torch.equal(logits(model), plain)
    perturb(model)
    output = logits(model)
    assert not torch.equal(output, plain)
    model.save_pretrained(tmp_path)
    stored = sum(t.numel() for t in _tensors(tmp_path).values())
    assert stored == sum(p.numel() for p in model.parameters() if p.requires_grad)
    again = peft.PeftModel.from_pretrained(bert(), tmp_path).eval()
    assert torch.equal(logits(again), output)
    model.merge_adapter()
    torch.testing.assert_close(logits(model), output, rtol=1e-4, atol=1e-5)
    model.unmerge_adapter()
    assert torch.equal(logits(model), output)
    with model.disable_adapter():
        assert torch.equal(logits(model), plain)
    merged = again.merge_and_unload().eval()
    assert type(merged) is type(bert())
    torch.testing.assert_close(logits(merged), output, rtol=1e-4, atol=1e-5)


@every_structure
def test_steps_are_measured_stored_and_read_again(fields, tmp_path):
    model = wrapped(**fields, steps="balanced")
    estimated, plain = dict(model.peft_config["default"].step_factors), logits(bert())
    assert torch.equal(logits(model), plain)
    ids = torch.randint(2, 50, (4, 7), generator=torch.Generator().manual_seed(1))
    found = glora.peft.balance(model, {"input_ids": ids})
    assert found.keys() == estimated.keys()
    assert found != estimated
    perturb(model)
    output = logits(model)
    model.save_pretrained(tmp_path)
    again = peft.PeftModel.from_pretrained(bert(), tmp_path).eval()
    assert again.peft_config["default"].step_factors == found
    assert torch.equal(logits(again), output)
    torch.testing.assert_close(logits(again.merge_and_unload().eval()), output, rtol=1e-4, atol=1e-5)


def test_a_configuration_used_again_knows_nothing_of_the_first_models_steps():
    config = GLoRAPeftConfig(target_modules=["query"], B="vector", D="vector", steps="balanced", task_type="SEQ_CLS")
    first = peft.get_peft_model(bert(), config)
    assert config.step_factors == {}
    other = bert()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.copy_(3 * parameter + 0.1)
    found, fresh = (peft.get_peft_model(m, c).peft_config["default"].step_factors for m, c in (
        (other, config), (copy.deepcopy(other), copy.deepcopy(config))
    ))  # fmt: skip
    assert found == fresh
    assert found != first.peft_config["default"].step_factors
    first.add_adapter("second", config)
    assert first.peft_config["second"].step_factors == first.peft_config["default"].step_factors
    assert config.step_factors == {}


def test_a_raw_adapter_has_no_steps_to_measure():
    with pytest.raises(ValueError, match="has no steps to measure; give GLoRAPeftConfig steps='balanced'"):
        glora.peft.balance(wrapped(B="lora"), {"input_ids": torch.ones(1, 3, dtype=torch.long)})


def _tensors(folder):
    from safetensors.torch import load_file

    return load_file(folder / "adapter_model.safetensors")


def test_several_adapters_switch_and_disable(tmp_path):
    model = wrapped(**STRUCTURES["alpha_lora"])
    perturb(model)
    first = logits(model)
    model.add_adapter("two", GLoRAPeftConfig(E="vector", target_modules="all-linear", task_type="SEQ_CLS"))
    model.set_adapter("two")
    perturb(model, seed=5)
    second = logits(model)
    assert not torch.equal(first, second)
    model.set_adapter("default")
    assert torch.equal(logits(model), first)
    trainable = [name for name, p in model.named_parameters() if p.requires_grad]
    assert trainable
    assert all(".default." in name for name in trainable)
    model.merge_adapter(["two"])
    model.unmerge_adapter()
    model.delete_adapter("two")
    assert torch.equal(logits(model), first)
    model.save_pretrained(tmp_path, selected_adapters=["default"])
    assert torch.equal(logits(peft.PeftModel.from_pretrained(bert(), tmp_path).eval()), first)


def test_transformers_loads_the_adapter(tmp_path):
    model = wrapped(**STRUCTURES["glora"])
    perturb(model)
    model.save_pretrained(tmp_path)
    plain = bert()
    plain.load_adapter(str(tmp_path))
    torch.testing.assert_close(logits(plain.eval()), logits(model))


def test_frozen_alpha_overrides_and_dtype():
    model = wrapped(
        A="scalar", D="scalar", tie_a_d=True, B="lora", train_alpha=False, alpha=0.5,
        overrides={r"layer\.1\.": {}, "query": {"B": "lora", "rank": 3}},
    )  # fmt: skip
    names = [name for name, p in model.named_parameters() if p.requires_grad and "glora_peft" in name]
    assert names
    assert not any(".A." in name or ".layer.1." in name for name in names)
    model.set_adapter("default")
    assert not any(p.requires_grad for name, p in model.named_parameters() if ".A." in name)
    half = peft.get_peft_model(bert().bfloat16(), GLoRAPeftConfig(B="lora", target_modules=["query"]))
    assert {p.dtype for p in half.parameters() if p.requires_grad} == {torch.float32}


def test_our_configuration_in_pefts_terms():
    config = presets.alpha_lora(2, target=r"(query|value)$", overrides={"query": LayerConfig(E="vector")})
    theirs = peft.get_peft_model(bert(), GLoRAPeftConfig.from_glora(config))
    assert (
        sum(p.numel() for p in theirs.parameters() if p.requires_grad)
        == glora.count_parameters(config, bert()).trainable
    )
    with pytest.raises(ValueError, match="target is a function"):
        GLoRAPeftConfig.from_glora(GLoRAConfig(target=lambda name, module: True, B="lora"))
    with pytest.raises(ValueError, match="A must be one of"):
        GLoRAPeftConfig(A="low")


def test_what_the_tuner_does_not_do_it_says():
    model = peft.get_peft_model(bert(), GLoRAPeftConfig(B="lora", target_modules=["query"]))
    model.add_adapter("two", GLoRAPeftConfig(E="vector", target_modules=["query"]))
    model.base_model.set_adapter(["default", "two"])
    with pytest.raises(ValueError, match="one adapter can be active at a time"):
        logits(model)
    with pytest.raises(ValueError, match="cannot adapt Embedding"):
        peft.get_peft_model(bert(), GLoRAPeftConfig(B="lora", target_modules=["word_embeddings"]))


def test_a_process_without_the_import_is_told_what_to_import(tmp_path):
    model = wrapped(B="lora")
    model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "adapter_config.json").read_text())["requires"] == "import glora.peft"
    code = f"import peft; peft.PeftConfig.from_pretrained({str(tmp_path)!r})"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "KeyError: 'GLORA_PEFT'" in result.stderr
    with pytest.raises(ValueError, match="open it with glora.peft"):
        peft_checkpoints.load(bert(), tmp_path)


def test_importing_glora_imports_neither_peft_nor_transformers():
    code = "import glora, sys; assert not {'peft', 'transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_trainer_trains_it(tmp_path):
    model = wrapped(**STRUCTURES["alpha_lora"])
    ids = torch.randint(2, 50, (16, 7))
    data = [{"input_ids": row, "labels": row[0] % 2} for row in ids]
    before = {name: p.clone() for name, p in model.named_parameters()}
    arguments = transformers.TrainingArguments(
        tmp_path,
        max_steps=3,
        per_device_train_batch_size=4,
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
        learning_rate=1e-2,
    )
    transformers.Trainer(model, arguments, train_dataset=data).train()
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {name for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("preset", ["lora", "recomputed_alpha_lora"])
def test_the_same_loss_curve_as_pefts_lora(preset):
    """20 steps from the same factors; α-LoRA with a frozen α = 1 is LoRA."""
    theirs = peft.get_peft_model(tiny_vit(), peft.LoraConfig(r=4, lora_alpha=8, target_modules=["qkv", "fc1"]))
    ours = tiny_vit()
    target = r"\.(qkv|fc1)$"
    if preset == "lora":
        glora.attach(ours, presets.lora(4, target, numerator=8))
    else:
        glora.attach(ours, presets.alpha_lora(4, target, numerator=8, train_alpha=False, recompute=True))
    with torch.no_grad():
        for name, module in glora.model.state.adapted_modules(ours):
            layer = theirs.base_model.model.get_submodule(name)
            module.adapters["default"].B.right.copy_(layer.lora_A["default"].weight)
    x, labels = images(16), torch.arange(16) % 3
    curves = []
    for model in (ours, theirs):
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
        curve = []
        for _ in range(20):
            loss = nn.functional.cross_entropy(model(x), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            curve.append(loss.item())
        curves.append(curve)
    assert curves[0][-1] < 0.9 * curves[0][0]
    assert max(abs(a - b) for a, b in zip(*curves, strict=True)) < 1e-5


def normed() -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))
    for _ in range(3):
        model(torch.randn(16, 6))
    return model.eval()


def with_statistics(name: str = "default") -> tuple[peft.PeftModel, torch.Tensor]:
    """A trained model whose adapter has running statistics of its own, and inputs."""
    model = peft.get_peft_model(normed(), GLoRAPeftConfig(B="lora", rank=2, target_modules=["0", "2"]), name)
    perturb(model)
    model.train()
    for _ in range(3):
        model(3 * torch.randn(16, 6) + 1)
    return model.eval(), torch.randn(5, 6)


def test_statistics_belong_to_the_adapter(tmp_path) -> None:
    model, x = with_statistics()
    base, output = normed(), model(x)
    assert model.base_model.model[1].num_features == 8
    with model.disable_adapter():
        assert torch.equal(model(x), base(x))
        model.train()(x)
        model.eval()
        assert torch.equal(model(x), base(x))
    model.save_pretrained(tmp_path)
    assert torch.equal(peft.PeftModel.from_pretrained(normed(), tmp_path).eval()(x), output)
    model.merge_adapter()
    torch.testing.assert_close(model(x), output, rtol=1e-4, atol=1e-5)
    model.unmerge_adapter()
    assert torch.equal(model(x), output)
    model.add_adapter("second", GLoRAPeftConfig(B="lora", rank=2, target_modules=["0"]))
    model.set_adapter("second")
    assert torch.equal(model(x), base(x))
    model.set_adapter("default")
    torch.testing.assert_close(copy.deepcopy(model).merge_and_unload()(x), output, rtol=1e-4, atol=1e-5)
    plain = model.unload()
    assert torch.equal(plain(x), base(x))
    assert type(plain[1]) is nn.BatchNorm1d
    assert all(torch.equal(value, base.state_dict()[key]) for key, value in plain.state_dict().items())


def test_a_failed_injection_and_a_failed_merge_leave_no_trace(monkeypatch) -> None:
    model = nn.Sequential(nn.Linear(6, 6), nn.utils.parametrizations.weight_norm(nn.Linear(6, 6)))
    before = list(model)
    with pytest.raises(ValueError, match="its weight is not a parameter"):
        peft.get_peft_model(model, GLoRAPeftConfig(B="lora", rank=2, target_modules=["0", "1"]))
    assert list(model) == before
    assert all(parameter.requires_grad for parameter in model.parameters())

    tuned, x = with_statistics()
    output, swaps = tuned(x), []

    def interrupted(base, parameters, original=peft_layers.swap):
        original(base, parameters)
        swaps.append(base)
        if len(swaps) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(peft_layers, "swap", interrupted)
        tuned.merge_adapter()
    assert torch.equal(tuned(x), output)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(peft_layers, "swap", interrupted)
        swaps.clear()
        tuned.merge_and_unload()
    assert torch.equal(tuned(x), output)
    tuned.merge_adapter()
    assert not torch.equal(tuned.unload()(x), output)
