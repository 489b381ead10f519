"""The supernet: slices, merging, extraction."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import glora
from glora.config import STRUCTURES, TENSORS, LayerConfig
from glora.search.supernet import KEPT, SuperNet
from glora.search.supernet_task import SuperNetTask
from tests.glora.toy import Net, Points, bare, toy_supernet


def single_layer_genomes():
    shape = [range(len(choices)) for choices in STRUCTURES.values()]
    for genes in np.ndindex(*map(len, shape)):
        yield np.array([genes], dtype=np.int8)


class TestSuperNet:
    def test_slices_are_the_papers(self):
        """Vector: column 0 of the left factor; scalar: its entry (0, 0)."""
        supernet = toy_supernet()
        full = dict(supernet.model.named_modules())["first"].adapters["supernet"]
        supernet.select(supernet.space.genome({"first": LayerConfig(A="vector", B="scalar", C="vector", D="scalar",
                                                                    E="vector", rank=3)}))  # fmt: skip
        base = supernet.model.first.base
        weight, bias = full.effective(base)
        w = base.weight * (1 + full.A.left[:, :1]) + full.B.left[0, 0]
        b = base.bias * (1 + full.D.value[0]) + full.E.value + base.weight @ full.C.left[:, 0]
        torch.testing.assert_close(weight, w.detach(), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(bias, b.detach(), rtol=1e-5, atol=1e-6)

    @pytest.mark.parametrize("tokens", [4, 40])  # the factored and the materialised plan
    def test_extraction_is_exact_for_every_structure(self, tokens):
        supernet = toy_supernet()
        x = torch.randn(tokens, 6, generator=torch.Generator().manual_seed(5))
        rng, plain = np.random.default_rng(4), bare(supernet)
        every = 1 if tokens > 16 else 9
        for number, first in list(enumerate(single_layer_genomes()))[::every]:
            genome = np.concatenate([first, supernet.space.sample(rng)[1:]])
            supernet.select(genome)
            with torch.no_grad():
                expected = supernet.model(x)
                report = supernet.extract(genome, plain, name=f"n{number}")
                assert torch.equal(plain(x), expected), supernet.space.configs(genome)
                assert report.adapter_parameters == supernet.space.count(genome)
                with supernet.merged(genome):
                    torch.testing.assert_close(supernet.model(x), expected, rtol=1e-4, atol=1e-4)
            glora.detach(plain)

    def test_merged_leaves_no_trace(self):
        supernet = toy_supernet(bias=False)
        before = {key: value.clone() for key, value in supernet.model.state_dict().items()}
        x, current = torch.randn(5, 6), supernet.genome
        expected = supernet.model(x)
        with supernet.merged(supernet.space.smallest):
            pass
        with pytest.raises(RuntimeError, match="inside"), supernet.merged(supernet.space.largest):
            raise RuntimeError("inside")
        after = supernet.model.state_dict()
        assert before.keys() == after.keys()
        assert all(torch.equal(before[key], after[key]) for key in before)
        assert np.array_equal(supernet.genome, current)
        assert torch.equal(supernet.model(x), expected)
        assert supernet.model.second.base.bias is None

    def test_gradients_reach_only_what_is_chosen(self):
        supernet = toy_supernet()
        supernet.select(supernet.space.genome({"first": LayerConfig(A="vector", E="scalar", rank=3)}))
        supernet.model(torch.randn(30, 6)).square().sum().backward()
        full = dict(supernet.model.named_modules())["first"].adapters["supernet"]
        assert full.A.left.grad[:, 0].abs().min() > 0
        assert full.A.left.grad[:, 1:].abs().max() == 0
        assert full.E.value.grad.nonzero().tolist() == [[0]]
        assert full.B.left.grad is None
        assert all(p.grad is None for name, p in supernet.model.named_parameters() if ".base." in name)

    def test_starts_at_the_base_model(self):
        model = Net()
        x = torch.randn(7, 6)
        expected = model(x)
        supernet = SuperNet(model, 2, modules_to_save=["head"])
        rng = np.random.default_rng(0)
        for _ in range(10):
            supernet.select(supernet.space.sample(rng))
            torch.testing.assert_close(model(x), expected, rtol=1e-6, atol=1e-6)
        supernet.detach()
        assert torch.equal(model(x), expected)

    def test_draws_follow_from_seed_and_step(self):
        supernet = toy_supernet()
        assert np.array_equal(supernet.draws(1, 7)[0], supernet.draws(1, 7)[0])
        different = [supernet.draws(1, step)[0].tobytes() for step in range(20)]
        assert len(set(different)) > 15
        sandwich = supernet.draws(0, 3, "sandwich", 2)
        assert [supernet.space.count(g) for g in (sandwich[0], sandwich[-1])] == [
            supernet.space.count(supernet.space.largest), 0,
        ]  # fmt: skip
        assert len(sandwich) == 4
        with pytest.raises(ValueError, match="sampling"):
            supernet.draws(0, 0, "greedy")

    def test_few_structures_are_kept(self):
        supernet, rng = toy_supernet(), np.random.default_rng(0)
        for _ in range(200):
            supernet.select(supernet.space.sample(rng))
        assert max(len(adapter._subnets) for _, adapter in supernet._layers) == KEPT

    def test_a_step_has_something_to_train(self):
        """Without a head, 1 of 16 draws here is a subnet of nothing, which once ended the training."""
        few = {"A": ["none", "vector"], "B": ["none"], "C": ["none"], "D": ["none"], "E": ["none", "vector"]}
        supernet = SuperNet(nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 3)), 1, structures=few)
        draws = [supernet.draws(0, step)[0] for step in range(200)]
        assert all(supernet.space.count(genome) for genome in draws)
        assert all(np.array_equal(genome, supernet.draws(0, step)[0]) for step, genome in enumerate(draws))
        with pytest.raises(ValueError, match="nothing is to be trained"):
            SuperNet(nn.Sequential(nn.Linear(6, 4)), 1, structures={tensor: ["none"] for tensor in TENSORS})

    def test_sandwich_loss_is_the_mean_over_its_subnets(self):
        supernet, task = toy_supernet(), Points()
        wrapped = SuperNetTask(task, supernet, seed=3, sampling="sandwich")
        wrapped.before_step(5)
        batch = task.batch("train", range(20))
        losses = []
        for genome in supernet.draws(3, 5, "sandwich"):
            supernet.select(genome)
            losses.append(task.loss(supernet.model, batch).item())
        assert wrapped.loss(supernet.model, batch).item() == pytest.approx(sum(losses) / 3)
        assert wrapped.size("train") == task.size("train")

    def test_autocast_trains(self):
        supernet = toy_supernet()
        supernet.select(supernet.space.largest)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = supernet.model(torch.randn(30, 6)).float().square().mean()
        loss.backward()
        grads = [p.grad for p in supernet.model.parameters() if p.requires_grad]
        assert all(torch.isfinite(grad).all() for grad in grads if grad is not None)

    def test_checkpoint_of_a_supernet_is_an_adapter(self, tmp_path):
        supernet = toy_supernet()
        glora.save(supernet.model, tmp_path)
        other = bare(supernet)
        glora.load(other, tmp_path)
        supernet.select(supernet.space.largest)
        x = torch.randn(30, 6)
        assert torch.equal(other(x), supernet.model(x))

    def test_a_name_that_is_taken_changes_nothing(self):
        model = Net()
        SuperNet(model, 2)
        with pytest.raises(ValueError, match="attached already"):
            SuperNet(model, 2)

    def test_layers_of_other_kinds(self):
        """A convolution and a layer that stands alone; nothing but the head is left of the empty subnet."""
        model = nn.Sequential(nn.Conv2d(3, 5, 3), nn.Flatten(), nn.Linear(5 * 4, 3))
        supernet = SuperNet(model, 2, r"^0$")
        genome = supernet.space.largest
        for parameter in model.parameters():
            if parameter.requires_grad:
                nn.init.normal_(parameter, std=0.3)
        x = torch.randn(6, 3, 4, 4)
        supernet.select(genome)
        expected = model(x)
        with supernet.merged(genome):
            torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-4)
        assert supernet.space.config(supernet.space.smallest, ["2"]).modules_to_save == ("2",)
