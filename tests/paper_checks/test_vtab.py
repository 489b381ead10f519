"""The vision study's protocol and statistics; its trainings are not repeated here."""

from __future__ import annotations

import json

import numpy as np
import pytest

from paper_checks.core import Context, Verdict
from paper_checks.glora import (
    vtab,
    vtab_corruptions,
    vtab_fewshot,
    vtab_gpu,
    vtab_layers,
    vtab_merging,
    vtab_paper,
    vtab_search,
)
from paper_checks.glora.vtab_statistics import pack, paired, unpack
from paper_checks.glora.vtab_study import BUDGET, CPU

CHECKS = [m.CHECK for m in (vtab, vtab_corruptions, vtab_fewshot, vtab_layers, vtab_merging, vtab_search)]


def run(accuracy: float, seed: int, size: int = 2000) -> dict:
    right = np.random.default_rng(seed).random(size) < accuracy
    return {"accuracy": 100 * float(right.mean()), "right": pack(right), "parameters": BUDGET, "corruptions": {}}


def finals(gain: float, seeds: int) -> dict[str, dict]:
    cells = {}
    for seed in range(seeds):
        for number, task in enumerate(("cifar10", "gtsrb")):
            draw = 10 * seed + number
            cells[f"final-{task}-lora-s{seed}"] = run(0.6, draw)
            cells[f"final-{task}-glora_searched-s{seed}"] = run(0.6 + gain, draw)
    return cells


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.id)
class TestEveryCheck:
    def test_cells_are_file_names_and_unique(self, check, tmp_path):
        cells = check.cells(Context(out=tmp_path))
        assert len(cells) == len(set(cells)) > 0
        assert all(set(cell) <= set("abcdefghijklmnopqrstuvwxyz0123456789-_.") for cell in cells)

    def test_without_data_or_in_a_hurry_it_is_not_run(self, check, tmp_path):
        for context in (Context(out=tmp_path), Context(out=tmp_path, quick=True)):
            outcome = check.run(context)
            assert outcome.verdict is Verdict.NOT_RUN
            assert outcome.missing

    def test_cells_of_the_others_do_not_decide(self, check, tmp_path):
        stored = {"final-cifar10-bitfit-s0": run(0.5, 0)}
        assert check.judge(stored).verdict in (Verdict.UNDECIDED, Verdict.NOT_RUN)
        assert check.draw({}) is None

    def test_cells_lie_in_one_folder(self, check, tmp_path):
        assert check._path(Context(out=tmp_path), "x").parent == tmp_path / "glora.vtab"


def test_the_gpu_version_has_a_folder_of_its_own(tmp_path):
    context = Context(out=tmp_path)
    assert vtab_gpu.CHECK._path(context, "x").parent == tmp_path / "glora.vtab_gpu"
    assert sum(cell.startswith("final") for cell in vtab_gpu.CHECK.cells(context)) == 3 * 5 * 9
    assert vtab_gpu.CHECK.judge({}).verdict is Verdict.UNDECIDED


def test_final_runs_come_after_what_they_rest_on(tmp_path):
    cells = list(vtab.CHECK.cells(Context(out=tmp_path)))
    for task in CPU.tasks:
        final = cells.index(f"final-{task}-glora_searched-s0")
        assert all(cells.index(f"rate-{task}-glora_searched-{rate:g}") < final for rate in CPU.rates)
        assert cells.index(f"supernet-{task}-s0") < final
        assert cells.index(f"final-{task}-lora-s1") > final


def test_budgets_agree_within_five_percent():
    """Counted on the layers of a ViT-S: 72 linear layers of the shapes 384 and 1536."""
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    import glora

    with torch.device("meta"):
        backbone = transformers.Dinov2Model(
            transformers.Dinov2Config(hidden_size=384, num_attention_heads=6, num_hidden_layers=12)
        )

    class Task:
        heads = ()

        def build_model(self, seed):
            return backbone

    context = Context(out=None)
    for method in ("lora", "alpha_lora", "glora_fixed", "glora_random"):
        config = vtab.CHECK._config(context, Task(), method, seed=0)
        parameters = glora.count_parameters(config, backbone).adapter_parameters
        assert 0.95 * BUDGET <= parameters <= 1.001 * BUDGET, method


class TestStatistics:
    def test_answers_survive_packing(self):
        right = np.random.default_rng(0).random(43) < 0.5
        assert np.array_equal(unpack(pack(right)), right)

    def test_interval_covers_the_truth(self):
        """Independent coins with a true gain of 2 points: about 95 of 100 intervals hold it."""
        hits = 0
        for trial in range(60):
            cells = {}
            for seed in range(3):
                for number, task in enumerate(("a", "b")):
                    draw = 1000 * trial + 10 * seed + number
                    cells[f"final-{task}-lora-s{seed}"] = run(0.6, draw, 1000)
                    cells[f"final-{task}-glora_searched-s{seed}"] = run(0.62, draw + 5, 1000)
            difference = paired(cells, "glora_searched", "lora")
            hits += difference.low <= 2.0 <= difference.high
        assert hits >= 53

    @pytest.mark.parametrize(
        ("gain", "seeds", "verdict"),
        [
            (0.05, 3, Verdict.REPRODUCED),
            (-0.05, 3, Verdict.NOT_REPRODUCED),
            (0.0, 3, Verdict.UNDECIDED),
            (0.05, 1, Verdict.UNDECIDED),
        ],
    )
    def test_verdict_follows_the_interval(self, gain, seeds, verdict):
        cells = finals(gain, seeds)
        outcome = vtab.CHECK.judge(cells)
        assert outcome.verdict is verdict, outcome.summary
        assert f"{4 * seeds} final runs" in outcome.summary
        assert vtab.CHECK.draw(cells) is not None

    def test_a_method_below_the_probe_is_named(self):
        cells = finals(0.05, 2) | {"final-gtsrb-probe-s0": run(0.9, 3), "final-cifar10-probe-s0": run(0.1, 3)}
        summary = vtab.CHECK.judge(cells).summary
        assert "NOT above the linear probe: glora_searched on gtsrb, lora on gtsrb" in summary

    def test_few_shot_pairs_by_shots(self):
        cells = {}
        for shots in (1, 4):
            for seed in range(3):
                for method, gain in (("lora", 0.0), ("glora_searched", 0.06)):
                    cells[f"few-cifar10-{method}-k{shots}-s{seed}"] = run(0.2 + 0.1 * shots + gain, 7 * seed + shots)
        assert paired(cells, "glora_searched", "lora", "few").pairs == 6
        assert vtab_fewshot.CHECK.judge(cells).verdict is Verdict.REPRODUCED

    def test_layers_and_merging(self):
        layer = {"random_mlp_share": 0.5, "random_spread": 0.02, "by_tensor": dict.fromkeys("ABCDE", 10)}
        for share, verdict in ((0.6, "reproduced"), (0.4, "not reproduced"), (0.505, "undecided")):
            cells = {"supernet-cifar10-s0": {"layers": {**layer, "mlp_share": share}}}
            assert vtab_layers.CHECK.judge(cells).verdict == verdict
            assert vtab_layers.CHECK.draw(cells) is not None
        for ratio, verdict in ((1.01, "reproduced"), (1.2, "not reproduced")):
            figures = {"ratio": {"merged": ratio, "unmerged": 1.4}, "error": {"merged": 0.01, "unmerged": 0.01}}
            assert vtab_merging.CHECK.judge({"latency-vit": figures}).verdict == verdict

    def test_corruptions(self):
        clean = {"clean": 60.0}
        better = {f"{kind}-{s}": 50.0 + i for i, kind in enumerate("abc") for s in (3, 5)}
        worse = {name: value - 2 - 0.1 * i for i, (name, value) in enumerate(better.items())}
        cells = {
            "final-cifar10-lora-s0": {**run(0.6, 0), "corruptions": clean | worse},
            "final-cifar10-glora_searched-s0": {**run(0.6, 0), "corruptions": clean | better},
        }
        assert vtab_corruptions.CHECK.judge(cells).verdict is Verdict.REPRODUCED


def test_the_papers_row(tmp_path):
    tasks = vtab_paper.CHECK.cells(Context(out=tmp_path))
    cells = {task: {"retrained": {"accuracy": paper}} for task, paper in zip(tasks, vtab_paper.PAPER, strict=True)}
    outcome = vtab_paper.CHECK.judge(cells)
    assert outcome.verdict is Verdict.REPRODUCED
    assert round(outcome.rows[-1].ours, 1) == 78.0  # 83.61 / 87.02 / 63.27
    cells.pop("dmlab")
    assert vtab_paper.CHECK.judge(cells).verdict is Verdict.UNDECIDED
    assert json.dumps([row.paper for row in outcome.rows])
    assert vtab_paper.CHECK.run(Context(out=tmp_path)).verdict is Verdict.NOT_RUN
