"""The search space: counts, budgets, repair."""

from __future__ import annotations

import math

import numpy as np
import pytest

import glora
from glora.config import STRUCTURES, TENSORS, LayerConfig
from glora.engines.space import Budget, SearchLayer, SearchSpace
from tests.glora.toy import bare, toy_supernet


def vit_b_space(rank):
    layers = []
    for block in range(12):
        shapes = {"attn.qkv": (2304, 768), "attn.proj": (768, 768), "mlp.fc1": (3072, 768), "mlp.fc2": (768, 3072)}
        layers += [SearchLayer(f"blocks.{block}.{name}", *shape) for name, shape in shapes.items()]
    return SearchSpace(tuple(layers), rank)


class TestSpace:
    def test_paper_counts(self):
        for rank, millions in ((2, 0.885), (4, 1.604), (8, 3.042), (16, 5.917)):
            space = vit_b_space(rank)
            assert round(space.count(space.largest) / 1e6, 3) == millions
        assert vit_b_space(4).log10_size == pytest.approx(48 * math.log10(432))

    def test_expected_size_of_a_random_subnet(self):
        # the paper: .309 / .499 / .880 M at ranks 2, 4, 8.
        for rank, millions in ((2, 0.309), (4, 0.499), (8, 0.880)):
            space = vit_b_space(rank)
            assert round(float((space.costs / space.allowed.sum(axis=2, keepdims=True)).sum()) / 1e6, 3) == millions

    def test_sampling_is_uniform_over_structures(self):
        space = SearchSpace((SearchLayer("a", 4, 5),), 2)
        rng = np.random.default_rng(0)
        draws = np.stack([space.sample(rng)[0] for _ in range(6000)])
        for t, choices in enumerate(STRUCTURES.values()):
            counts = np.bincount(draws[:, t], minlength=len(choices))
            expected = 6000 / len(choices)
            assert np.all(np.abs(counts - expected) < 4 * np.sqrt(expected))

    def test_counts_are_those_of_attach(self):
        supernet, rng = toy_supernet(bias=False), np.random.default_rng(1)
        for _ in range(20):
            genome = supernet.space.sample(rng)
            report = glora.count_parameters(supernet.config(genome), bare(supernet))
            assert report.adapter_parameters == supernet.space.count(genome)

    def test_a_layer_without_bias_has_no_choice_of_d(self):
        space = toy_supernet(bias=False).space
        assert space.allowed[1, TENSORS.index("D")].tolist() == [True, False, False, False]

    def test_repair_fits_and_leaves_what_fits(self):
        space, rng = vit_b_space(4), np.random.default_rng(2)
        budget = Budget.around(300_000)
        for start in (space.largest, space.smallest, space.sample(rng)):
            fitted = space.repair(start, budget, rng)
            assert budget.holds(space.count(fitted))
            assert np.array_equal(space.repair(fitted, budget, rng), fitted)

    def test_budget_that_nothing_fits(self):
        space = vit_b_space(2)
        with pytest.raises(ValueError, match=r"fits no subnet: this space has 0 to 884,"):
            space.fits(Budget(2_000_000, 1_900_000))
        with pytest.raises(ValueError, match="0 ≤ low ≤ high"):
            Budget(10, 20)
        narrow = SearchSpace((SearchLayer("a", 64, 64),), 2, {"A": ["none", "lora"], "B": ["none"], "C": ["none"],
                                                              "D": ["none"], "E": ["none"]})  # fmt: skip
        with pytest.raises(ValueError, match="widen the budget"):
            narrow.repair(narrow.largest, Budget(100, 50), np.random.default_rng(0))

    def test_fits_is_exact_and_repair_always_arrives(self):
        """Against all sizes of small spaces, with budgets one parameter wide."""
        structures = {"A": ["none", "lora"], "B": ["vector", "lora"], "C": ["none"], "D": ["none"],
                      "E": ["none", "vector"]}  # fmt: skip
        layers = (SearchLayer("a", 6, 4), SearchLayer("b", 9, 5))
        space, rng = SearchSpace(layers, 2, structures), np.random.default_rng(0)
        sizes = {space.count(space.sample(rng)) for _ in range(600)}
        assert len(sizes) > 20
        for size in range(max(sizes) + 10):
            budget = Budget(size, size)
            if size in sizes:
                space.fits(budget)
                assert space.count(space.repair(space.sample(rng), budget, rng)) == size
                assert space.count(space._assembled(budget, rng)) == size
            else:
                with pytest.raises(ValueError, match="fits no subnet|widen the budget"):
                    space.fits(budget)
        space.fits(Budget.around(40, 0.5))

    def test_genome_and_configs_are_inverse(self):
        space, rng = vit_b_space(3), np.random.default_rng(3)
        genome = space.sample(rng)
        assert np.array_equal(space.genome(space.configs(genome)), genome)
        with pytest.raises(ValueError, match="not in the search space"):
            space.genome({"elsewhere": LayerConfig(A="scalar")})

    def test_wrong_genomes_and_structures(self):
        space = SearchSpace((SearchLayer("a", 4, 5),), 2, {"A": ["none"]})
        with pytest.raises(ValueError, match="not allowed"):
            space.check(np.array([[1, 0, 0, 0, 0]], dtype=np.int8))
        with pytest.raises(ValueError, match="shape"):
            space.check(np.zeros((2, 5), dtype=np.int8))
        with pytest.raises(ValueError, match="structures"):
            SearchSpace((SearchLayer("a", 4, 5),), 2, {"A": ["matrix"]})
