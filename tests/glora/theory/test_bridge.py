"""The suggestion equals the theory where the model is linear, and says so where the theory is silent."""

from __future__ import annotations

import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from torch import nn

import glora
import rmt
from glora.theory.bridge import suggest_alpha
from glora.theory.tangents import margins_at, tangents
from rmt.choosing import leave_one_out
from tests.glora.theory.test_tangents import Deep, few

MEAN, P = 1.6, 30


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def linear_task(n: int, *, p: int = P, seed: int = 0, dtype=torch.float64):
    """Balanced target samples y·m + z, a source w̃ and the head that carries it."""
    rng = np.random.default_rng(seed)
    mean = np.zeros(p)
    mean[0] = MEAN
    source = np.zeros(p)
    source[:2] = 0.25, 0.3
    y = np.tile([1.0, -1.0], n // 2)
    x = y[:, None] * mean + rng.normal(size=(n, p))
    head = nn.Linear(p, 1, bias=False).to(dtype)
    with torch.no_grad():
        head.weight.copy_(torch.as_tensor(source)[None])
    model = nn.Sequential(head)
    return model, [(torch.as_tensor(x, dtype=dtype), torch.as_tensor(y))], (x, y, mean, source)


def refitted_scores(x, y, source, gamma, *, intercept):
    """Held-out scores at α = 0 and 1 by fitting n times, the penalty kept at nγ."""
    n, p = x.shape
    out = np.empty((n, 2))
    for i in range(n):
        keep = np.arange(n) != i
        design = np.column_stack([x[keep], np.ones(n - 1)]) if intercept else x[keep]
        penalty = n * gamma * np.eye(design.shape[1])
        if intercept:
            penalty[-1, -1] = 0.0
        for j, alpha in enumerate((0.0, 1.0)):
            fit = np.linalg.solve(design.T @ design + penalty, design.T @ (y[keep] - alpha * x[keep] @ source))
            out[i, j] = y[i] * (x[i] @ (alpha * source + fit[:p]) + (fit[p] if intercept else 0.0))
    return out[:, 0], out[:, 1] - out[:, 0]


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize(("method", "name"), [("loo", "alpha_star"), ("loo-risk", "alpha_risk")])
def test_on_a_linear_model_it_is_rmt(intercept, method, name):
    model, batches, (x, y, _, source) = linear_task(24)
    z = np.stack(refitted_scores(x, y, source, 0.7, intercept=intercept))
    expected = rmt.QuadraticScore(z.mean(axis=1), np.cov(z, bias=True))
    found = suggest_alpha(model, "0", batches, method=method, gamma=0.7, intercept=intercept, shrink=False)
    assert found.alphas["0"] == pytest.approx(float(getattr(expected, name)), rel=1e-9)
    assert found.accuracy_plain == pytest.approx(float(expected.accuracy(1.0)), rel=1e-9)
    assert found.accuracy_suggested == pytest.approx(float(expected.accuracy(found.alphas["0"])), rel=1e-9)
    assert found.disagreement < 1e-9
    assert (found.forward_passes, found.backward_passes) == (2, 1)


def test_it_agrees_with_rmts_estimators():
    model, batches, (x, y, _, source) = linear_task(24)
    path = rmt.RidgePath(y[:, None] * x, source[:, None])
    for method, rule in (("loo", leave_one_out.moment), ("loo-risk", leave_one_out.squared)):
        found = suggest_alpha(model, "0", batches, method=method, gamma=0.7, intercept=False, shrink=False)
        # rmt's sample covariance divides by n − 1, which no ratio of moments notices.
        assert found.alphas["0"] == pytest.approx(float(rule(path, 0.7)[0]), rel=1e-9)


@pytest.mark.parametrize("method", ["loo", "plugin"])
def test_it_converges_to_the_theory(method):
    n = 600
    model, batches, (_, _, mean, source) = linear_task(n)
    setting = rmt.GaussianTransfer(
        n=n, gamma=0.5, mean=mean, covariance=np.ones(P), source=rmt.FixedSource(vector=source)
    )
    score = rmt.theory(setting)
    found = suggest_alpha(model, ["0"], batches, method=method, gamma=0.5, shrink=False)
    layer = found.layers[0]
    assert abs(found.alphas["0"] - float(score.alpha_star)) < 4 * layer.stderr
    assert found.accuracy_suggested == pytest.approx(float(score.best_accuracy), abs=0.03)
    assert layer.method == method


def test_plugin_is_unbiased_where_dimension_is_high():
    found = []
    for seed in range(12):
        model, batches, (_, _, mean, source) = linear_task(60, p=80, seed=seed)
        _, batches_s, _ = linear_task(150, p=80, seed=100 + seed)
        one = suggest_alpha(model, "0", batches, source_batches=batches_s, method="plugin", gamma=1.0, shrink=False)
        found.append((one.alphas["0"], one.accuracy_plain))
    setting = rmt.GaussianTransfer(
        n=60, gamma=1.0, mean=mean, covariance=np.ones(80), source=rmt.FixedSource(vector=source)
    )
    score = rmt.theory(setting)
    alpha, plain = np.median(np.array(found), axis=0)
    assert alpha == pytest.approx(float(score.alpha_star), rel=0.35)
    assert plain == pytest.approx(float(score.accuracy(1.0)), abs=0.03)


def test_two_logits_give_what_one_score_gives():
    model, batches, (_, _, _, source) = linear_task(40)
    two = nn.Linear(P, 2, bias=False).double()
    with torch.no_grad():
        two.weight.copy_(torch.as_tensor(np.stack([-source, source])))
    pair = [(batches[0][0], (batches[0][1] > 0).long())]
    for method in ("loo", "plugin"):
        # The two rows move the margin by (Δ₁ − Δ₀)/2, so a penalty on both is half the penalty on one.
        one = suggest_alpha(model, "0", batches, method=method, gamma=0.6, shrink=False)
        other = suggest_alpha(nn.Sequential(two), "0", pair, method=method, gamma=0.3, shrink=False)
        assert other.alphas["0"] == pytest.approx(one.alphas["0"], rel=1e-9)
        assert other.accuracy_suggested == pytest.approx(one.accuracy_suggested, rel=1e-9)


def test_target_margin_is_a_change_of_units():
    model, batches, _ = linear_task(24)
    one = suggest_alpha(model, "0", batches, gamma=0.7, shrink=False)
    with torch.no_grad():
        model[0].weight.mul_(3.0)
    scaled = [(batches[0][0], batches[0][1])]
    three = suggest_alpha(model, "0", scaled, gamma=0.7 / 9, target_margin=3.0, shrink=False)
    assert three.alphas["0"] == pytest.approx(one.alphas["0"], rel=1e-9)


def test_two_layer_linear_network():
    model = Deep().double()
    batches = few(20)
    found = tangents(model, ["first", "head"], batches)
    first, head = found.layers
    # f = v·(Wx + b) + c: the first layer's Jacobian is v xᵀ, its own part all but c; the head's is the hidden state.
    signs = found.signs[:, None]
    outer = torch.einsum("o,ni->noi", model.head.weight[0], signs * batches[0][0]).flatten(1)
    torch.testing.assert_close(first.features, outer.detach())
    torch.testing.assert_close(head.features, (signs * model.first(batches[0][0])).detach())
    torch.testing.assert_close(first.own, found.margin - (signs[:, 0] * model.head.bias).detach())
    torch.testing.assert_close(head.own, found.margin)
    suggestion = suggest_alpha(model, ["first", "head"], batches, shrink=False)
    # The joint model leaves out the product of the two steps, and says by how much.
    moves = [suggestion.alphas[name] - 1 for name in ("first", "head")]
    real = margins_at(model, suggestion.alphas, batches)
    linear = found.margin + moves[0] * first.source + moves[1] * head.source
    push = moves[0] * first.source + moves[1] * head.source
    torch.testing.assert_close(
        torch.tensor(suggestion.disagreement).double(), (real - linear).norm() / push.norm(), rtol=1e-6, atol=1e-9
    )
    assert suggestion.forward_passes >= 2


def test_a_source_from_elsewhere():
    model, batches, _ = linear_task(24)
    elsewhere = torch.randn_like(model[0].weight)
    given = suggest_alpha(model, "0", batches, sources={"0": elsewhere}, gamma=0.4, shrink=False)
    with torch.no_grad():
        model[0].weight.copy_(elsewhere)
    inside = suggest_alpha(model, "0", batches, gamma=0.4, shrink=False)
    assert given.alphas["0"] == pytest.approx(inside.alphas["0"], rel=1e-9)
    assert given.disagreement < 1e-9


def test_shrinkage_pulls_towards_one():
    model, batches, _ = linear_task(24)
    free = suggest_alpha(model, "0", batches, shrink=False, gamma=0.5)
    layer = free.layers[0]
    move = layer.alpha - 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        shrunk = suggest_alpha(model, "0", batches, gamma=0.5)
    expected = 1 + move * max(0.0, 1 - (layer.stderr / move) ** 2)
    assert shrunk.alphas["0"] == pytest.approx(expected, rel=1e-9)


def test_a_layer_is_pulled_towards_one_by_a_bounded_prior():
    model = Deep(smooth=True).double()
    batches = few(30)
    seen = set()
    for radius in (0.02, 0.2, 2.0):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            layer = suggest_alpha(model, "first", batches, radius=radius, gamma=1e-3).layers[0]
        move = layer.raw_alpha - 1
        spread = max(0.0, min(move**2 - layer.stderr**2, (radius / 2) ** 2))
        expected = float(np.clip(move * spread / (spread + layer.stderr**2), -radius, radius))
        assert layer.alpha - 1 == pytest.approx(expected, rel=1e-9)
        seen.add(expected)
    assert len(seen) == 3


def test_plugin_gives_way_where_its_moments_are_impossible():
    methods = set()
    for seed in range(6):  # eight samples in 30 dimensions: the unbiased ‖m‖² is often below what the overlap needs
        model, batches, _ = linear_task(8, seed=seed)
        layer = suggest_alpha(model, "0", batches, method="plugin", shrink=False, gamma=1.0).layers[0]
        assert np.isfinite(layer.raw_alpha)
        methods.add(layer.method)
    assert methods == {"plugin", "loo-risk"}


def test_the_guard_caps_the_scale():
    """theory.md §1: where (V⁻¹c)₁ ≤ 0 the best accuracy lies at infinity."""
    model, _, (_, _, mean, _) = linear_task(8)
    with torch.no_grad():
        model[0].weight.copy_(torch.as_tensor(mean)[None] * 0.01)
    fired = []
    for seed in range(10):
        _, batches, _ = linear_task(8, seed=seed)
        found = suggest_alpha(model, "0", batches, method="loo", gamma=50.0, shrink=False)
        fired.append(np.isinf(found.layers[0].raw_alpha))
        if fired[-1]:
            assert abs(found.alphas["0"]) == 50.0
    assert any(fired)


def test_silence_has_a_reason():
    model = Deep().double()
    nn.init.zeros_(model.head.weight)
    with pytest.warns(UserWarning, match="does not reach the score"):
        found = suggest_alpha(model, "first", few())
    assert found.alphas == {"first": 1.0}
    assert found.reason
    assert found.gain == 0.0
    nn.init.normal_(model.head.weight)
    model.first.weight.data.zero_()
    model.first.bias.data.zero_()
    with pytest.warns(UserWarning, match="no effect"):
        suggest_alpha(model, "first", few())


def test_a_scale_within_its_error_of_one_is_one():
    fired = 0
    for seed in range(10):
        model, batches, _ = linear_task(10, seed=seed)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = suggest_alpha(model, "0", batches, gamma=0.3)
        layer = found.layers[0]
        unsure = layer.stderr >= abs(layer.raw_alpha - 1)
        assert unsure == bool(caught) == (found.alphas == {"0": 1.0})
        assert not unsure or "within one standard error" in str(caught[0].message)
        fired += unsure
    assert fired


def test_a_network_that_is_not_linear_is_found_out():
    class Quantised(Deep):
        """Its gradients (straight through) promise an effect that the rounded values do not have."""

        def forward(self, x):
            hidden = self.first(x)
            return self.head(hidden + (hidden.sign() - hidden).detach())

    model = Quantised().double()
    with pytest.warns(UserWarning, match="not linear"):
        found = suggest_alpha(model, "first", few(16), shrink=False)
    assert found.alphas == {"first": 1.0}


@pytest.mark.parametrize("classes", [2, 4])
def test_tiny_bert(classes):
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=40, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24,
        max_position_embeddings=12, num_labels=classes,
    )  # fmt: skip
    model = transformers.BertForSequenceClassification(config)
    ids = torch.randint(0, 40, (16, 9))
    batches = [
        ({"input_ids": ids[:8], "attention_mask": torch.ones_like(ids[:8])}, torch.arange(8) % classes),
        ({"input_ids": ids[8:], "attention_mask": torch.ones_like(ids[8:])}, torch.arange(8) % classes),
    ]
    check_on_model(model, batches, ["bert.encoder.layer.1.attention.self.query", "classifier"])


def test_tiny_vision_transformer():
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24, image_size=8, patch_size=4,
        num_labels=2,
    )  # fmt: skip
    model = transformers.ViTForImageClassification(config)
    check_on_model(model, [(torch.randn(12, 3, 8, 8), torch.arange(12) % 2)], [r"classifier"])


def check_on_model(model, batches, layers):
    """Suggest, attach, apply; the base model and its flags stay as they were."""
    model.train()
    before = {name: p.clone() for name, p in model.state_dict().items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        found = suggest_alpha(model, layers, batches, shrink=False)
    assert model.training
    assert all(p.requires_grad for p in model.parameters())
    assert all(torch.equal(before[name], p) for name, p in model.state_dict().items())
    assert not any(m._forward_hooks for m in model.modules() if isinstance(m, nn.Linear))
    glora.attach(model, glora.presets.alpha_lora(rank=2, target=layers, exclude_heads=False))
    found.apply(model)
    for name, alpha in found.alphas.items():
        torch.testing.assert_close(model.get_submodule(name).alpha.mean().item(), alpha, rtol=1e-5, atol=1e-6)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        again = suggest_alpha(model, layers, batches, shrink=False)
    assert again.alphas == pytest.approx(found.alphas, rel=1e-4)  # adapters are switched off while it looks


def bad(**changes):
    model, batches, _ = linear_task(8)
    arguments = {"model": model, "layers": "0", "batches": batches, **changes}
    return suggest_alpha(**arguments)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layers": "nowhere"}, "no module is called 'nowhere'"),
        ({"layers": []}, "at least one"),
        ({"batches": []}, "batches is empty"),
        ({"batches": [(torch.randn(2, P).double(), torch.tensor([0, 1]))]}, "too few"),
        ({"batches": [(torch.randn(6, P).double(), torch.ones(6))]}, "both classes"),
        ({"batches": [(torch.randn(6, P).double(), torch.arange(6))]}, "0 and 1"),
        ({"batches": [(torch.randn(6, P).double(), torch.ones(5))]}, "shape"),
        ({"batches": [(torch.full((6, P), torch.nan).double(), torch.arange(6) % 2)]}, "not finite"),
        ({"method": "magic"}, "method must be one of"),
        ({"gamma": -1.0}, "gamma must be"),
        ({"radius": 0.0}, "radius must be"),
        ({"target_margin": float("nan")}, "target_margin must be"),
        ({"sources": {"1": torch.zeros(1, P)}}, "not among the layers"),
        ({"sources": {"0": torch.zeros(2, P)}}, "shape"),
        ({"sources": {"0": torch.full((1, P), torch.inf)}}, "not finite"),
        ({"source_batches": [(torch.randn(6, P).double(), torch.ones(6))], "method": "plugin"}, "source_batches"),
        ({"score": lambda out: out[None]}, "scores of shape"),
    ],
)
def test_bad_input(changes, message):
    with pytest.raises(ValueError, match=message):
        bad(**changes)


def test_unsupported_and_unused_layers():
    model = nn.Sequential(nn.Conv2d(1, 2, 2), nn.Flatten(), nn.Linear(2, 1))
    images = [(torch.randn(6, 1, 2, 2), torch.arange(6) % 2)]
    with pytest.raises(ValueError, match="Conv2d"):
        suggest_alpha(model, "0", images)
    deep = Deep()
    deep.spare = nn.Linear(6, 5)
    with pytest.raises(ValueError, match="not used"):
        suggest_alpha(deep, "spare", [(torch.randn(6, 6), torch.arange(6) % 2)])


def test_apply_needs_alpha_lora():
    model, batches, _ = linear_task(24)
    found = suggest_alpha(model, "0", batches, shrink=False)
    with pytest.raises(ValueError, match="no adapter"):
        found.apply(model)
    glora.attach(model, glora.presets.lora(rank=1, target=["0"]))
    with pytest.raises(ValueError, match="alpha"):
        found.apply(model)
    with pytest.raises(ValueError, match="no layer"):
        found.apply(nn.Sequential())


def test_glora_does_not_import_rmt():
    code = "import glora, glora.theory.tangents, sys; assert not any(m.split('.')[0] == 'rmt' for m in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_auto_needs_no_scikit_learn(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    model, batches, _ = linear_task(60)
    assert suggest_alpha(model, "0", batches, gamma=1.0).layers[0].method == "plugin"
