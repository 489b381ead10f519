"""One layer: precision, memory, compilation, function transforms, dropout, alpha."""

from __future__ import annotations

import shutil
import warnings
import weakref

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glora.config import LayerConfig
from glora.layer import forward
from glora.layer.adapter import Adapter
from glora.layer.wrappers import AdaptedLayer
from tests.glora.models import perturb
from tests.glora.oracle import effective

STRUCTURES = {
    "lora": LayerConfig(B="lora", rank=4),
    "alpha_lora": LayerConfig(A="vector", D="vector", tie_a_d=True, B="lora", rank=4),
    "recomputed": LayerConfig(A="vector", D="vector", tie_a_d=True, B="lora", rank=4, recompute=True),
    "scales": LayerConfig(A="scalar", B="vector", C="vector", D="vector", E="vector"),
    "glora": LayerConfig(A="lora", B="lora", C="lora", D="vector", E="vector", rank=4),
    "product": LayerConfig(A="lora", B="lora", C="lora", rank=4, a_product="matmul"),
    "diagonal": LayerConfig(A="vector", B="lora", E="vector", rank=4, a_product="matmul"),
}


def adapted(config: LayerConfig, base: nn.Module, *, random: bool = True) -> AdaptedLayer:
    layer = AdaptedLayer(base.requires_grad_(False))
    layer.add("a", config, torch.Generator().manual_seed(1))
    layer.select("a")
    if random:
        perturb(layer)
    return layer


def linear(out_features: int = 48, in_features: int = 32, **kwargs) -> nn.Linear:
    torch.default_generator.manual_seed(0)
    return nn.Linear(in_features, out_features, **kwargs)


def inputs(tokens: int = 40, features: int = 32, **kwargs) -> Tensor:
    return torch.randn(tokens, features, generator=torch.Generator().manual_seed(3)).to(**kwargs)


every_structure = pytest.mark.parametrize("config", STRUCTURES.values(), ids=STRUCTURES)


def exact(layer: AdaptedLayer, x: Tensor) -> Tensor:
    """The oracle's output in float64."""
    adapter = layer.adapters["a"]
    parameters = {name: p.detach().double() for name, p in adapter.named_parameters()}
    bias = None if layer.base.bias is None else layer.base.bias.double()
    weight, bias = effective(adapter.config, parameters, layer.base.weight.double(), bias)
    return F.linear(x.double(), weight, bias)


@every_structure
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("tokens", [2, 40])
def test_half_precision_bases_have_float32_adapters(config, dtype, tokens):
    layer = adapted(config, linear().to(dtype), random=False)
    x = inputs(tokens, dtype=dtype)
    assert torch.equal(layer(x), layer.base(x))
    perturb(layer)
    assert {p.dtype for p in layer.adapters.parameters()} == {torch.float32}
    output = layer(x)
    assert output.dtype == dtype
    reference = exact(layer, x)
    error = (output.double() - reference).norm() / reference.norm()
    assert error < 4 * torch.finfo(dtype).eps
    output.float().square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in layer.adapters.parameters())


@every_structure
@pytest.mark.parametrize("tokens", [2, 40])
def test_autocast(config, tokens):
    layer = adapted(config, linear(), random=False)
    x = inputs(tokens)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(layer(x), layer.base(x))
    perturb(layer)
    with torch.autocast("cpu", torch.bfloat16):
        output = layer(x)
    assert output.dtype == torch.bfloat16
    reference = exact(layer, x)
    assert (output.double() - reference).norm() / reference.norm() < 0.02
    output.float().square().sum().backward()
    assert all(p.grad.dtype == torch.float32 for p in layer.adapters.parameters())


def test_bfloat16_error_is_no_larger_than_pefts():
    peft = pytest.importorskip("peft")
    torch.default_generator.manual_seed(0)
    base = nn.Linear(256, 256, bias=True)
    config = peft.GloraConfig(r=4, target_modules=["0"], config_C="lora", config_D_E="vector")
    theirs = peft.get_peft_model(nn.Sequential(base), config, autocast_adapter_dtype=True)
    perturb(theirs, size=0.05)
    ours = adapted(LayerConfig(A="lora", B="lora", C="lora", D="vector", E="vector", rank=4), linear(256, 256))
    their_layer = theirs.base_model.model[0]
    ours.base.load_state_dict(their_layer.base_layer.state_dict())
    with torch.no_grad():
        for name in "ABCDE":
            path, tensor = getattr(their_layer, f"glora_{name}")["default"], getattr(ours.adapters["a"], name)
            for mine, other in (("left", "Xd"), ("right", "Xu"), ("value", "X")):
                if hasattr(tensor, mine):
                    getattr(tensor, mine).copy_(getattr(path, other).reshape(getattr(tensor, mine).shape))
    x = inputs(64, 256, dtype=torch.bfloat16)
    ours.base.bfloat16()
    their_layer.base_layer.bfloat16()
    reference = exact(ours, x)
    our_error = (ours(x).double() - reference).norm()
    their_error = (theirs(x).double() - reference).norm()
    assert our_error <= their_error


@every_structure
def test_gradient_checkpointing_gives_the_same_gradients(config):
    from torch.utils.checkpoint import checkpoint

    layer, x = adapted(config, linear()), inputs().requires_grad_(True)
    wrt = [x, *layer.adapters.parameters()]
    plain = torch.autograd.grad(layer(x).square().sum(), wrt)
    again = torch.autograd.grad(checkpoint(layer, x, use_reentrant=False).square().sum(), wrt)
    assert all(torch.equal(a, b) for a, b in zip(plain, again, strict=True))


@every_structure
@pytest.mark.skipif(shutil.which("c++") is None and shutil.which("g++") is None, reason="no C++ compiler")
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
@pytest.mark.filterwarnings("ignore::UserWarning:torch")
def test_compiles_as_one_graph(config):
    """`aot_eager` traces forward and backward like the default backend, without minutes of C++."""
    torch.compiler.reset()
    layer, x = adapted(config, linear()), inputs().requires_grad_(True)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    output = compiled(x)
    torch.testing.assert_close(output, layer(x))
    wrt = [x, *layer.adapters.parameters()]
    for a, b in zip(
        torch.autograd.grad(output.square().sum(), wrt),
        torch.autograd.grad(layer(x).square().sum(), wrt),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.whole
@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
@pytest.mark.filterwarnings("ignore:`torch.jit.script`:DeprecationWarning")
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
@pytest.mark.filterwarnings("ignore::UserWarning:torch")
def test_compiles_with_the_default_backend():
    torch.compiler.reset()
    layer, x = adapted(STRUCTURES["alpha_lora"], linear()), inputs()
    torch.testing.assert_close(torch.compile(layer, fullgraph=True)(x), layer(x))


@every_structure
@pytest.mark.filterwarnings("ignore:`torch.jit.script`:DeprecationWarning")
def test_function_transforms(config):
    """grad, vmap over samples and over parameters, jvp against reverse mode."""
    from torch.func import functional_call, grad, jvp, vmap

    layer, x = adapted(config, linear().double()), inputs(20).double()
    parameters = {name: p.detach() for name, p in layer.named_parameters() if p.requires_grad}

    def loss(parameters, x):
        return functional_call(layer, parameters, (x,)).square().sum()

    total = grad(loss)(parameters, x)
    names = list(parameters)
    own = dict(layer.named_parameters())
    reverse = torch.autograd.grad(layer(x).square().sum(), [own[name] for name in names])
    for name, expected in zip(names, reverse, strict=True):
        torch.testing.assert_close(total[name], expected)
    each = vmap(grad(loss), in_dims=(None, 0))(parameters, x)
    for name in names:
        torch.testing.assert_close(each[name].sum(0), total[name])
    stacked = {name: torch.stack([p, 2 * p]) for name, p in parameters.items()}
    both = vmap(loss, in_dims=(0, None))(stacked, x)
    torch.testing.assert_close(both[0], loss(parameters, x))
    tangent = {name: torch.randn_like(p) for name, p in parameters.items()}
    _, derivative = jvp(lambda p: loss(p, x), (parameters,), (tangent,))
    expected = sum((total[name] * tangent[name]).sum() for name in names)
    torch.testing.assert_close(derivative, expected)


def test_second_derivatives():
    layer, x = adapted(LayerConfig(A="vector", B="lora", rank=2), linear(3, 4).double()), inputs(20, 4).double()
    names = [name for name, p in layer.named_parameters() if p.requires_grad]

    def output(*values):
        return torch.func.functional_call(layer, dict(zip(names, values, strict=True)), (x,))

    values = tuple(dict(layer.named_parameters())[name].detach().requires_grad_(True) for name in names)
    assert torch.autograd.gradgradcheck(output, values)


def saved_bytes(layer: nn.Module, x: Tensor) -> dict[int, tuple[int, tuple[int, ...]]]:
    """(bytes, shape) of every storage kept for the backward pass that is no parameter."""
    parameters = {p.untyped_storage().data_ptr() for p in layer.parameters()}
    kept: dict[int, tuple[int, tuple[int, ...]]] = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            kept[storage.data_ptr()] = (storage.nbytes(), tuple(tensor.shape))
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        layer(x)
    return kept


@pytest.mark.parametrize(
    "config",
    [
        LayerConfig(B="lora", rank=4),
        LayerConfig(A="vector", D="vector", tie_a_d=True, B="lora", rank=4, train_alpha=False, alpha=0.9),
        LayerConfig(A="vector", D="vector", tie_a_d=True, B="lora", rank=4, recompute=True),
        LayerConfig(B="lora", C="lora", D="vector", E="vector", rank=4),
        LayerConfig(B="vector", E="vector"),
    ],
    ids=lambda config: config.summary + (" recomputed" if config.recompute else ""),
)
def test_keeps_no_more_than_lora_for_the_backward_pass(config):
    peft = pytest.importorskip("peft")
    x = inputs(200, 96).requires_grad_(True)
    lora = peft.get_peft_model(nn.Sequential(linear(64, 96)), peft.LoraConfig(r=4, target_modules=["0"]))
    theirs = sum(size for size, _ in saved_bytes(lora, x).values())
    ours = sum(size for size, _ in saved_bytes(adapted(config, linear(64, 96)), x).values())
    assert ours <= 1.05 * theirs


@pytest.mark.parametrize("field", ["recompute", "frozen"])
def test_the_base_output_is_let_go_of(field, monkeypatch):
    """Nothing that `saved_tensors_hooks` does not see holds it either."""
    options = {"recompute": True} if field == "recompute" else {"train_alpha": False, "alpha": 0.9}
    layer = adapted(LayerConfig(A="vector", D="vector", tie_a_d=True, B="lora", rank=4, **options), linear())
    seen, original = [], forward.scale_add

    def spy(output, *rest):
        seen.append(weakref.ref(output))
        return original(output, *rest)

    monkeypatch.setattr(forward, "scale_add", spy)
    output = layer(inputs().requires_grad_(True))
    assert seen[0]() is None
    output.sum().backward()


def test_a_trained_scale_keeps_one_output_more():
    x = inputs(200, 96).requires_grad_(True)
    plain = sum(size for size, _ in saved_bytes(adapted(STRUCTURES["lora"], linear(64, 96)), x).values())
    scaled = sum(size for size, _ in saved_bytes(adapted(STRUCTURES["alpha_lora"], linear(64, 96)), x).values())
    assert scaled - plain <= 200 * 64 * 4 + 1024


@every_structure
def test_no_tensor_as_large_as_the_weight_is_kept(config):
    kept = saved_bytes(adapted(config, linear(64, 96)), inputs(20, 96).requires_grad_(True))
    assert all(shape not in ((64, 96), (96, 64)) for _, shape in kept.values())
    assert max(size for size, _ in kept.values()) < 64 * 96 * 4


@every_structure
def test_gradients_of_the_base_weight_are_right_when_asked_for(config):
    layer, x = adapted(config, linear(5, 7).double()), inputs(20, 7).double()
    layer.base.requires_grad_(True)
    wrt = [layer.base.weight, layer.base.bias]
    actual = torch.autograd.grad(layer(x).square().sum(), wrt)
    parameters = {name: p.detach() for name, p in layer.adapters["a"].named_parameters()}
    weight, bias = effective(config, parameters, layer.base.weight, layer.base.bias)
    expected = torch.autograd.grad(F.linear(x, weight, bias).square().sum(), wrt)
    for a, b in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, b)


def test_no_tokens_and_no_batch():
    for config in STRUCTURES.values():
        layer = adapted(config, linear())
        assert layer(torch.zeros(0, 32)).shape == (0, 48)
        assert layer(torch.zeros(2, 0, 32)).shape == (2, 0, 48)
        assert layer(inputs(1)[0]).shape == (48,)


def test_a_sketch_computes_shapes():
    for config in STRUCTURES.values():
        assert adapted(config, linear(device="meta"), random=False)(torch.zeros(40, 32, device="meta")).shape == (
            40,
            48,
        )


def test_dropout_acts_on_the_low_rank_b_while_training_only():
    layer = adapted(LayerConfig(B="lora", rank=4, dropout=0.5), linear())
    x = inputs()
    assert not torch.equal(layer.train()(x), layer(x))
    assert torch.equal(layer.eval()(x), layer(x))
    layer = adapted(LayerConfig(A="lora", B="lora", rank=4, dropout=0.5), linear())
    assert not torch.equal(layer.train()(x), layer(x))
    with torch.no_grad():
        for tokens in (4, 40):
            mean = torch.stack([layer(inputs(tokens)) for _ in range(2000)]).mean(0)
            torch.testing.assert_close(mean, layer.eval()(inputs(tokens)), atol=0.05, rtol=0.05)
            layer.train()


def test_alpha_is_readable_and_settable():
    config = LayerConfig(A="vector", D="vector", tie_a_d=True, B="lora", alpha=0.25)
    layer = adapted(config, linear(), random=False)
    assert torch.equal(layer.alpha, torch.full((48,), 0.25))
    x = inputs()
    torch.testing.assert_close(layer(x), 0.25 * layer.base(x))
    layer.alpha = 2.0
    torch.testing.assert_close(layer(x), 2 * layer.base(x))
    layer.alpha = torch.linspace(0, 1, 48)
    torch.testing.assert_close(layer(x), torch.linspace(0, 1, 48) * layer.base(x))
    with pytest.raises(ValueError, match=r"alpha has shape \(3,\), expected a number or \(48,\)"):
        layer.alpha = torch.ones(3)
    with pytest.raises(AttributeError, match="this layer has A='none'"):
        _ = adapted(LayerConfig(B="lora"), linear()).alpha


def test_a_frozen_alpha_stays_frozen():
    config = LayerConfig(A="scalar", D="scalar", tie_a_d=True, B="lora", alpha=0.5, train_alpha=False)
    layer = adapted(config, linear(), random=False)
    assert [name for name, p in layer.named_parameters() if p.requires_grad] == [
        "adapters.a.B.left",
        "adapters.a.B.right",
    ]


def test_the_same_seed_draws_the_same_factors_on_any_dtype():
    draws = [
        Adapter(LayerConfig(B="lora"), linear(dtype=dtype), torch.Generator().manual_seed(5)).B.right
        for dtype in (torch.float32, torch.bfloat16)
    ]
    assert torch.equal(*draws)
    assert Adapter(LayerConfig(B="lora"), linear(dtype=torch.float64)).B.right.dtype == torch.float64


@pytest.mark.parametrize("init", ["kaiming", "xavier", "gaussian"])
def test_initial_factors_have_their_law(init):
    adapter = Adapter(LayerConfig(B="lora", rank=16, init=init), linear(64, 4096), torch.Generator().manual_seed(0))
    deviation = adapter.B.right.std().item()
    assert deviation == pytest.approx(
        {"kaiming": 4096**-0.5 / 3**0.5, "xavier": (2 / 4112) ** 0.5, "gaussian": 0.25}[init], rel=0.02
    )
    assert not adapter.B.left.any()


@pytest.mark.parametrize("module", [nn.Embedding(3, 4), nn.Conv1d(2, 3, 1), nn.LayerNorm(4), nn.Bilinear(2, 3, 4)])
def test_other_layers_are_refused(module):
    with pytest.raises(ValueError, match=f"cannot adapt {type(module).__name__}; supported are nn.Linear"):
        Adapter(LayerConfig(B="lora"), module)


def test_integer_weights_are_refused():
    base = nn.Linear(2, 2)
    base.weight = nn.Parameter(torch.zeros(2, 2, dtype=torch.int8), requires_grad=False)
    with pytest.raises(ValueError, match="cannot adapt Linear with torch.int8 weights"):
        Adapter(LayerConfig(B="lora"), base)


def test_nothing_warns():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for config in STRUCTURES.values():
            adapted(config, linear())(inputs()).sum().backward()
