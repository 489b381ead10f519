"""Loading: an adapter lands on the layers it was trained on, whole, on its own base, or the reason is said."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import glora
from glora import presets
from glora.peft_checkpoints import load as load_peft
from tests.glora.models import perturb
from tests.museum import models
from tests.museum.case import Case, named, parametrize


class Wrapped(nn.Module):
    """A model of models, as a multimodal class nests the language model."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.language_model = inner

    def forward(self, *arguments):
        return self.language_model(*arguments)


def in_folder(check: Callable[[Path], None]) -> Callable[[], None]:
    """The check with a folder of its own."""

    def replay() -> None:
        with tempfile.TemporaryDirectory() as folder:
            check(Path(folder))

    return replay


def target_matches_nothing() -> None:
    with named("qkv_proj", "matches no layer", "near misses"):
        glora.attach(models.llama(), presets.lora(2, target=r"qkv_proj$"))


def names_match_nothing() -> None:
    with named("target", "no module is called 'to_q'"):
        glora.attach(models.bert(), presets.lora(2, target=["to_q"]))


def other_prefix(folder: Path) -> None:
    glora.save(models.trained(models.plain()), folder)
    with named("does not fit this model", "layer 0: missing"):
        glora.load(Wrapped(models.plain()), folder)


def nested_language_model(folder: Path) -> None:
    glora.save(models.trained(models.llama(), r"q_proj$"), folder)
    with named("does not fit this model", "self_attn.q_proj: missing"):
        glora.load(Wrapped(models.llama()), folder)


def names_of_another_library(folder: Path) -> None:
    """Keys without a counterpart in this model."""
    peft_checkpoint(folder, {"diffusion_model.layers.0.to_q": (4, 6)})
    with named("the model has no layer 'diffusion_model.layers.0.to_q'"):
        load_peft(models.plain(), folder)


def unexpected_keys(folder: Path) -> None:
    peft_checkpoint(folder, {"0": (8, 6)}, extra={"base_model.model.9.weight": torch.ones(2)})
    with named("no counterpart in this layer or model", "9.weight"):
        load_peft(models.plain(), folder)


def damaged_numbers_are_refused(folder: Path, change: Callable[[dict], dict]) -> None:
    """Change the tensors of a saved adapter, its digest included."""
    from glora.model import checkpoint

    glora.save(models.trained(models.plain()), folder)
    index = checkpoint.read_index(folder)
    tensors = change(checkpoint.read_tensors(folder, index))
    entry, data = checkpoint.encoded("adapter", tensors)
    (folder / entry["tensors"]).write_bytes(data)
    (folder / "adapter.json").write_text(json.dumps({**index, **entry}))
    model = models.plain()
    with named("does not fit this model"):
        glora.load(model, folder)


def missing_keys(folder: Path) -> None:
    damaged_numbers_are_refused(folder, lambda tensors: {k: t for k, t in tensors.items() if k != "0.B.left"})


def other_rank(folder: Path) -> None:
    damaged_numbers_are_refused(folder, lambda tensors: tensors | {"0.B.left": torch.zeros(8, 5)})


def lands_whole(folder: Path) -> None:
    model = models.trained(models.plain())
    glora.save(model, folder)
    other = models.plain()
    glora.load(other, folder)
    assert torch.equal(other(models.points()), model(models.points()))


def another_base(folder: Path) -> None:
    glora.save(models.trained(models.plain()), folder)
    other = models.plain()
    other[0].weight.data.normal_()
    with named("trained on another base model", "0.weight: other values"):
        glora.load(other, folder)


def cut_off_file(folder: Path) -> None:
    glora.save(models.trained(models.plain()), folder)
    file = next(folder.glob("adapter-*.safetensors"))
    data = bytearray(file.read_bytes())
    data[-3] ^= 0xFF
    file.write_bytes(bytes(data))
    with named("damaged or truncated"):
        glora.load(models.plain(), folder)


def head_comes_back(folder: Path) -> None:
    model = models.bert()
    glora.attach(model, presets.lora(2, target=r"query$", modules_to_save=["classifier"]))
    perturb(model)
    glora.save(model, folder)
    other = models.bert()
    other.classifier.weight.data.zero_()
    glora.load(other, folder)
    assert torch.equal(other.eval()(models.ids()).logits, model.eval()(models.ids()).logits)


def plain_head_comes_back(folder: Path) -> None:
    model = models.plain()
    glora.attach(model, presets.lora(2, target=["0"], modules_to_save=["4"]))
    perturb(model)
    glora.save(model, folder)
    other = models.plain()
    glora.load(other, folder)
    assert torch.equal(other[4].weight, model[4].weight)
    assert torch.equal(other(models.points()), model(models.points()))


def peft_checkpoint(folder: Path, layers: dict[str, tuple[int, int]], extra=None, **fields) -> None:
    """A LoRA checkpoint as PEFT writes it."""
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, "target_modules": list(layers), **fields}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    tensors = {}
    for name, (rows, cols) in layers.items():
        tensors[f"base_model.model.{name}.lora_A.weight"] = torch.ones(2, cols)
        tensors[f"base_model.model.{name}.lora_B.weight"] = torch.ones(rows, 2)
    save_file({**tensors, **(extra or {})}, folder / "adapter_model.safetensors")


def activated_lora(folder: Path) -> None:
    peft_checkpoint(folder, {"0": (8, 6)}, alora_invocation_tokens=[1, 2])
    with named("alora_invocation_tokens=[1, 2]", "no counterpart"):
        load_peft(models.plain(), folder)


def unknown_cousin(folder: Path) -> None:
    peft_checkpoint(folder, {"0": (8, 6)}, use_some_new_dora=True)
    with named("use_some_new_dora=True", "no counterpart"):
        load_peft(models.plain(), folder)


def replaced_layer(folder: Path) -> None:
    model = models.trained(models.llama(), ["lm_head", "q_proj"])
    model.set_output_embeddings(nn.Linear(16, 44, bias=False))
    with named("covers 'lm_head'", "was replaced after attach"):
        glora.save(model, folder)


def names_without_a_suffix(folder: Path) -> None:
    peft_checkpoint(
        folder, {}, {"base_model.model.0.lora_A": torch.ones(2, 6), "base_model.model.0.lora_B": torch.ones(8, 2)}
    )
    with named("0.lora_A"):
        load_peft(models.plain(), folder)


def one_prefix_too_many(folder: Path) -> None:
    peft_checkpoint(folder, {"base_model.model.0": (8, 6)})
    with named("the model has no layer 'base_model.model.0'"):
        load_peft(models.plain(), folder)


def second_target_matches_nothing() -> None:
    model = models.trained(models.plain())
    with named("target", "no module is called 'to_q'"):
        glora.attach(model, presets.lora(2, target=["to_q"]), "second")
    glora.certify(model, models.points(), quick=True)


CASES = [
    Case(
        "mflux-community/mflux#505",
        "tensors named without a trailing .weight match no key, and the image is made without the adapter",
        in_folder(names_without_a_suffix),
        "known layers",
    ),
    Case(
        "huggingface/sentence-transformers#3865",
        "a prefix that the bare model does not have: the adapter stays as it was drawn, the embeddings are the base's",
        in_folder(one_prefix_too_many),
        "known layers",
    ),
    Case(
        "huggingface/peft#3533",
        "a first adapter whose targets match nothing is refused, a second one is accepted and adapts nothing",
        second_target_matches_nothing,
        "targets must match",
    ),
    Case(
        "vllm-project/vllm#55193",
        "an adapter whose targets match none of the served modules is accepted and serves the base",
        target_matches_nothing,
        "targets must match",
        "Llama",
    ),
    Case(
        "vllm-project/vllm-omni#7190",
        "add_adapter answers True, activation completes, and no module was wrapped",
        names_match_nothing,
        "targets must match",
        "Bert",
    ),
    Case(
        "vllm-project/vllm#39278",
        "keys pass a check by suffix, match no full path, and are dropped without a word",
        in_folder(nested_language_model),
        "checked loading",
        "Llama",
    ),
    Case(
        "vllm-project/vllm#34186",
        "adapters with another prefix of their module names give the base's output",
        in_folder(other_prefix),
        "checked loading",
    ),
    Case(
        "alvdansen/signet-trainer#105",
        "the result of loading is thrown away, so an adapter that lands nowhere renders the base",
        in_folder(missing_keys),
        "checked loading",
    ),
    Case(
        "huggingface/diffusers#10187",
        "after a change, loading a LoRA is a no-op: no layer is added",
        in_folder(lands_whole),
        "checked loading",
    ),
    Case(
        "ml-explore/mlx-examples#337",
        "load_weights(strict=False) onto a model without LoRA layers changes nothing",
        in_folder(other_rank),
        "checked loading",
    ),
    Case(
        "huggingface/diffusers#11383",
        "most LoRAs of a hub load without an error and are not applied",
        in_folder(names_of_another_library),
        "known layers",
    ),
    Case(
        "huggingface/diffusers#9622",
        "keys that are missing or left over when loading a LoRA are not told",
        in_folder(unexpected_keys),
        "left-over keys",
    ),
    Case(
        "tloen/alpaca-lora#293",
        "training ends without an error, and what is saved is a file of 443 bytes",
        in_folder(cut_off_file),
        "digest",
    ),
    Case(
        "hiyouga/LlamaFactory#6105",
        "the adapter loads as it should and the base answers; the base's path was another one than it was trained on",
        in_folder(another_base),
        "fingerprint",
    ),
    Case(
        "huggingface/peft#310",
        "for sequence classification the trained output layer is not in the saved file",
        in_folder(head_comes_back),
        "heads are saved",
        "Bert",
    ),
    Case(
        "huggingface/sentence-transformers#3980",
        "a loaded LoRA checkpoint has a newly drawn head instead of the trained one",
        in_folder(plain_head_comes_back),
        "heads are saved",
    ),
    Case(
        "IBM/activated-lora#16",
        "checkpoints of activated LoRA and of LoRA are taken for each other when loaded",
        in_folder(activated_lora),
        "known fields",
    ),
    Case(
        "KohakuBlueleaf/LyCORIS#216",
        "a variant of LoRA (DoRA) of one library scales along another axis than that of the one that loads it",
        in_folder(unknown_cousin),
        "known fields",
    ),
    Case(
        "huggingface/transformers#45079",
        "resizing the embeddings makes a new output layer, and what stood on the old one is lost",
        in_folder(replaced_layer),
        "layers must be there",
        "Llama",
    ),
]


@parametrize(CASES)
def test_an_adapter_lands_whole_or_is_refused(case, switched_off):
    case.check(switched_off)


def test_a_training_checkpoint_says_how_to_load_it(tmp_path):
    model = models.trained(models.plain())
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    with pytest.raises(FileNotFoundError, match="glora.attach the same configuration, then model.load_state_dict"):
        glora.load(models.plain(), tmp_path)


@pytest.mark.parametrize("name", ["0", "default", "head"])
def test_an_adapter_may_bear_the_name_of_a_layer(name, tmp_path):
    model = models.plain()
    if name == "0":
        name = "fc1"
    model.fc1 = model[0]
    glora.attach(model, presets.lora(2, target=["0"], modules_to_save=["4"]), name)
    for _ in range(2):
        glora.save(model, tmp_path)
    assert glora.count_parameters(model).adapter_parameters


def test_a_second_name_a_root_and_a_container():
    model = models.plain()
    model.again = model[0]
    assert [layer.name for layer in glora.attach(model, presets.lora(2, target=["again"])).layers] == ["0"]
    for target in ([""], "all-linear"):
        with named("wrap it", "nn.Sequential(model)"):
            glora.attach(nn.Linear(4, 4), presets.lora(2, target=target))
    model = nn.Sequential(nn.Linear(4, 4), nn.ModuleList([nn.Linear(4, 4)]))
    with named("is a ModuleList", "name its members"):
        glora.attach(model, presets.lora(2, target=["0"], modules_to_save=["1"]))
