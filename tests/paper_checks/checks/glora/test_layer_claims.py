"""The checks of the layer: their figures on few draws, and rules that say both yes and no."""

from __future__ import annotations

import copy

import pytest

torch = pytest.importorskip("torch")

from paper_checks.checks.glora import hypothesis_class, special_cases  # noqa: E402
from paper_checks.core import Context, Verdict, all_checks  # noqa: E402
from paper_checks.statistics import timing  # noqa: E402
from paper_checks.studies import published  # noqa: E402

CHECKS = {key: check for key, check in all_checks().items() if key.startswith("glora.")}
OWN = ["special_cases", "merging", "parameter_counts", "hypothesis_class"]
GOOD = {
    "special_cases": Verdict.BY_CONSTRUCTION,
    "merging": Verdict.REPRODUCED,
    "parameter_counts": Verdict.REPRODUCED,
    "hypothesis_class": Verdict.BY_CONSTRUCTION,
}


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def figures(name: str) -> dict:
    cells = CHECKS[f"glora.{name}"].finished()
    if not cells:
        pytest.skip("no committed results")
    return copy.deepcopy(cells)


def judge(name: str, cells: dict) -> Verdict:
    outcome = CHECKS[f"glora.{name}"].judge(cells)
    assert outcome.summary.endswith(".")
    assert all(row.ours is not None for row in outcome.rows)
    return outcome.verdict


@pytest.mark.parametrize("name", OWN)
def test_committed_figures_give_their_verdict(name):
    cells = figures(name)
    assert set(cells) == set(CHECKS[f"glora.{name}"].cells(Context(out=None)))
    assert judge(name, cells) == GOOD[name]


@pytest.mark.parametrize(
    ("name", "cell", "path", "value"),
    [
        ("special_cases", "exact", ("difference", "α-LoRA"), 1e-9),
        ("special_cases", "not_exact", ("method", "FacT"), 1e-4),
        ("special_cases", "not_exact", ("glora", "AdaptFormer"), 1e-3),
        ("merging", "exactness", ("output_error",), 2e-6),
        ("merging", "exactness", ("weight_error",), 2e-6),
        ("merging", "exactness", ("bits_restored",), False),
        ("merging", "latency", ("ratio",), 1.2),
        ("merging", "latency", ("flops_merged",), 1),
        ("parameter_counts", "counts", ("structures",), 431),
        ("parameter_counts", "counts", ("supernet", "8"), 3_000_000),
        ("parameter_counts", "counts", ("mean", "4"), 3_000_000),
        ("hypothesis_class", "inclusion", ("difference", "SSF"), 1e-9),
        ("hypothesis_class", "inclusion", ("dimension", "GLoRA"), 1),
    ],
)
def test_bent_figures_change_the_verdict(name, cell, path, value):
    cells = figures(name)
    place = cells[cell]
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    assert judge(name, cells) == Verdict.NOT_REPRODUCED


def test_every_method_equals_its_structure_and_lies_inside_the_largest():
    base, x = published.frozen_layer(1), published.inputs(1)
    for name, method in published.methods(1).items():
        expected = method.forward(x, base.weight, base.bias)
        for config, parameters in (
            (method.config, method.parameters),
            (published.LARGEST, method.embedded(base.weight)),
        ):
            layer = published.adapted(base, config, parameters)
            torch.testing.assert_close(layer(x), expected, msg=lambda text, n=name: f"{n}: {text}")
    with pytest.raises(ValueError, match="has no parameters"):
        published.adapted(base, method.config, {"E.value": torch.zeros(published.OUT)})


def test_curvature_tells_affine_functions_from_others():
    base = published.frozen_layer(2)
    assert special_cases.curvature(lambda x: base(x).detach(), 0) < 1e-14
    assert special_cases.curvature(lambda x: torch.relu(base(x)).detach(), 0) > 0.1


def test_dimension_of_a_low_rank_family():
    lora = published.methods(0)["LoRA"]
    rank, rows, cols = published.RANK, published.OUT, published.IN
    expected = rank * (rows + cols - rank)
    assert hypothesis_class._dimension(lora.config, lora.parameters, 0) == expected


def test_quick_runs(tmp_path):
    context = Context(out=tmp_path, quick=True)
    for name in ("merging", "parameter_counts"):
        assert CHECKS[f"glora.{name}"].run(context).verdict in (Verdict.REPRODUCED, Verdict.NOT_REPRODUCED)
    exact = CHECKS["glora.merging"].finished(tmp_path)["exactness"]
    assert exact["output_error"] < 1e-6
    assert exact["structures"] == 72


def test_the_error_of_a_ratio_shrinks_with_the_rounds():
    rng = torch.Generator().manual_seed(0)
    few, many = (1 + 0.1 * torch.rand(2, size, generator=rng) for size in (10, 1000))
    assert timing.ratio_error(*many.tolist()) < timing.ratio_error(*few.tolist()) < 0.05
