"""The vision study's protocol and statistics; its trainings are not repeated here."""

from __future__ import annotations

import json

import numpy as np
import pytest

from paper_checks.checks.glora import (
    vtab,
    vtab_corruptions,
    vtab_fewshot,
    vtab_gpu,
    vtab_layers,
    vtab_leak,
    vtab_merging,
    vtab_paper,
    vtab_search,
)
from paper_checks.core import Context, Verdict
from paper_checks.statistics.answers import pack, unpack
from paper_checks.studies.vision import gpu_hours
from paper_checks.studies.vision.methods import QUERY_VALUE, TUNED, configuration, label, parse, sized, without
from paper_checks.studies.vision.statistics import paired, searched, table
from paper_checks.studies.vision.study import BUDGET, CPU

CHECKS = [m.CHECK for m in (vtab, vtab_corruptions, vtab_fewshot, vtab_layers, vtab_merging, vtab_search)]


def run(accuracy: float, seed: int, size: int = 2000) -> dict:
    right = np.random.default_rng(seed).random(size) < accuracy
    return {"accuracy": 100 * float(right.mean()), "right": pack(right), "parameters": BUDGET, "corruptions": {}}


def finals(gain: float, seeds: int, tasks: tuple[str, ...] = ("cifar10", "gtsrb")) -> dict[str, dict]:
    cells = {}
    for seed in range(seeds):
        for number, task in enumerate(tasks):
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

    def test_recall_reads_its_own_cells_alone(self, check, tmp_path):
        folder = tmp_path / "glora.vtab"
        folder.mkdir()
        (folder / "somebody-elses.json").write_text('{"figures": {}}')
        assert check.recall(tmp_path).verdict is Verdict.NOT_RUN
        assert check.records(tmp_path) == {}

    def test_cells_lie_in_one_folder(self, check, tmp_path):
        assert check._path(Context(out=tmp_path), "x").parent == tmp_path / "glora.vtab"


def test_the_gpu_version_has_a_folder_of_its_own(tmp_path):
    context = Context(out=tmp_path)
    assert vtab_gpu.CHECK._path(context, "x").parent == tmp_path / "glora.vtab_gpu"
    assert sum(cell.startswith("final") for cell in vtab_gpu.CHECK.cells(context)) == 3 * 5 * (3 * 5 + 4)
    assert vtab_gpu.CHECK.judge({}).verdict is Verdict.UNDECIDED


def test_final_runs_come_after_what_they_rest_on(tmp_path):
    cells = list(vtab.CHECK.cells(Context(out=tmp_path)))
    for task in CPU.tasks:
        final = cells.index(f"final-{task}-glora_searched-s0")
        assert all(cells.index(f"rate-{task}-glora_searched-{rate:g}") < final for rate in CPU.rates)
        assert cells.index(f"supernet-{task}-s0") < final
        assert cells.index(f"final-{task}-lora-s1") > final


def test_cost_cells_come_last_and_decide_nothing(tmp_path):
    cells = list(vtab.CHECK.cells(Context(out=tmp_path)))
    costs = [cell for cell in cells if cell.startswith("cost-")]
    assert costs == cells[-len(costs) :] == [f"cost-{method}" for method in TUNED]
    assert [cell for cell in vtab_gpu.CHECK.cells(Context(out=tmp_path)) if cell.startswith("cost")][-1] == "cost-full"
    stored = finals(0.05, 3)
    figures = {"memory_mib": 20.0, "seconds": 0.1, "ratio": 1.1, "error": 0.01, "device": "cpu"}
    plain, costed = vtab.CHECK.judge(stored), vtab.CHECK.judge(stored | {"cost-lora": figures, "cost-ssf": figures})
    assert (plain.verdict, plain.summary) == (costed.verdict, costed.summary)
    assert {row.name for row in costed.rows} - {row.name for row in plain.rows} == {
        "LoRA: training memory above the base model (MiB)",
        "LoRA: CPU seconds a training step",
        "SSF: training memory above the base model (MiB)",
        "SSF: CPU seconds a training step",
        "SSF / LoRA: training memory",
        "SSF / LoRA: time of a training step",
    }


def test_the_table_says_which_learning_rates_were_chosen():
    cells = {cell: {**figures, "lr": 2e-4 if "gtsrb" in cell else 1e-3} for cell, figures in finals(0.05, 2).items()}
    rows = {row.name: row.ours for row in vtab.CHECK.judge(cells).rows}
    assert rows["cifar10: LoRA: learning rate chosen"] == 1e-3
    assert rows["gtsrb: GLoRA, searched: learning rate chosen"] == 2e-4


def test_a_tensor_can_be_taken_out(tmp_path):
    glora = pytest.importorskip("glora")
    first = glora.LayerConfig(A="vector", B="lora")
    config = glora.GLoRAConfig(B="vector", C="lora", rank=2, overrides={"^first$": first}, modules_to_save=["head"])
    found = without(config, "b")
    assert (found.B, found.C, found.rank, found.modules_to_save) == ("none", "lora", 2, ("head",))
    assert (found.overrides["^first$"].A, found.overrides["^first$"].B) == ("vector", "none")
    cells = {
        f"rate-gtsrb-glora_searched{name}-0.001": {"validation": value}
        for name, value in (("", 10.0), ("_without_b", 15.0), ("_without_broadcast_b", 20.0))
    }
    assert set(cells) < set(vtab.CHECK.cells(Context(out=tmp_path)))
    outcome = vtab.CHECK.judge(finals(0.0, 2) | cells)
    assert (
        "at 0.001 the searched subnet reaches 10 % of gtsrb's val200, without its scalar and vector B 20 %"
        in outcome.summary
    )
    assert "harms" not in vtab.CHECK.judge(finals(0.0, 2)).summary
    names = [row.name for row in outcome.rows]
    assert "GLoRA, searched, without B at 0.001: gtsrb, val200 (%)" in names
    assert "GLoRA, searched, without scalar and vector B at 0.001: gtsrb, val200 (%)" in names
    # The first pattern's B is low-rank and stays; the default's is a vector and goes.
    kept = without(config, "broadcast_b")
    assert (kept.B, kept.overrides["^first$"].B) == ("none", "lora")


@pytest.fixture(scope="module")
def vit_s():
    """The shapes of a ViT-S: 72 linear layers of 384 and 1536."""
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    with torch.device("meta"):
        return transformers.Dinov2Model(
            transformers.Dinov2Config(hidden_size=384, num_attention_heads=6, num_hidden_layers=12)
        )


class TestBudgets:
    """Counted on a ViT-S; every method of free size meets every budget of the plans within 5 %."""

    @pytest.mark.parametrize("plan", [CPU, vtab_gpu.CHECK.plan], ids=["cpu", "gpu"])
    @pytest.mark.parametrize("method", ["lora", "alpha_lora", "glora_fixed", "glora_random"])
    def test_within_five_percent(self, vit_s, plan, method):
        import glora

        for budget in plan.budgets:
            config = configuration(method, budget, lambda: vit_s, (), target=plan.target)
            parameters = glora.count_parameters(config, vit_s).adapter_parameters
            assert 0.95 * budget <= parameters <= 1.015 * budget, budget

    def test_the_studys_own_structures(self, vit_s):
        """What the module's docstring says of the budget of 290,304."""
        ranks = {}
        for method in ("lora", "alpha_lora", "glora_fixed"):
            config = configuration(method, BUDGET, lambda: vit_s, ())
            layers = [config.layer_for(name) for name in config.target]
            assert len(layers) == 72
            ranks[method] = [layer.rank for layer in layers[::6]]
        assert ranks == {"lora": [3, 4] * 6, "alpha_lora": [3] * 12, "glora_fixed": [1] * 12}

    def test_blocks_without_a_rank_keep_their_vectors(self, vit_s):
        config = configuration("glora_fixed", 50_000, lambda: vit_s, (), target=QUERY_VALUE)
        layers = [config.layer_for(name) for name in config.target]
        assert [layer.summary for layer in layers].count("D=vector E=vector") == 8
        assert len(layers) == 24

    def test_an_impossible_budget(self, vit_s):
        with pytest.raises(ValueError, match=r"alpha_lora has no size within 5% of budget=45,000 on 72 layers"):
            configuration("alpha_lora", 45_000, lambda: vit_s, ())

    def test_names(self):
        budgets = vtab_gpu.CHECK.plan.budgets
        assert sized("lora", budgets) == ["lora.50k", "lora.100k", "lora.200k"]
        assert sized("lora", [BUDGET]) == sized("lora", (BUDGET,)) == ["lora"]
        assert sized("full", budgets) == ["full"]
        assert parse("glora_searched.100k", budgets) == ("glora_searched", 100_000)
        assert parse("lora", [BUDGET]) == ("lora", BUDGET)
        assert label("alpha_lora.50k") == "α-LoRA (50k)"
        assert vtab_gpu.CHECK.lora("ssf") == "lora.50k"
        assert vtab_gpu.CHECK.lora("alpha_lora.200k") == "lora.200k"
        assert vtab.CHECK.lora("alpha_lora") == "lora"

    @pytest.mark.parametrize(
        ("gains", "verdict"),
        [((0.05, 0.05, 0.05), "reproduced"), ((0.05, 0.0, 0.05), "undecided"), ((0.05, 0.0, -0.05), "not reproduced")],
    )
    def test_verdict_over_budgets(self, gains, verdict):
        cells, size = {}, "50k 100k 200k".split()
        for gain, name in zip(gains, size, strict=True):
            for cell, figures in finals(gain, 3, vtab_gpu.CHECK.plan.tasks).items():
                kind, task, method, seed = cell.split("-")
                cells[f"{kind}-{task}-{method}.{name}-{seed}"] = figures
        inherited = {name: {"config": {}, "inherited": {"accuracy": 50.0}} for name in size}
        cells["supernet-gtsrb-s0"] = inherited
        outcome = vtab_gpu.CHECK.judge(cells)
        assert outcome.verdict == verdict
        assert "GLoRA, searched (100k) − LoRA (100k)" in outcome.summary
        assert vtab_gpu.CHECK.draw(cells) is not None
        assert table(cells)["gtsrb", "glora_inherited.50k"] == [50.0]
        assert searched(inherited, "glora_searched.50k") is inherited["50k"]
        assert searched(inherited["50k"], "glora_searched") is inherited["50k"]


def test_one_estimate_of_gpu_hours(tmp_path):
    """The figures in texts are those of the one derivation."""
    gpu, paper = vtab_gpu.CHECK, vtab_paper.CHECK
    work = gpu_hours.study(gpu.plan, gpu.cells(Context(out=tmp_path)))
    assert (round(work.trained / 1e6, 1), round(work.asked / 1e6, 1)) == (35.8, 9.4)
    hours = work.hours(gpu_hours.VIT_S14, gpu.plan.side)
    assert f"about {hours:.0f} GPU hours" in gpu.needs[-1]
    assert f"about {hours:.0f}\nGPU hours" in vtab_gpu.__doc__
    assert f"(98 px: {work.hours(gpu_hours.VIT_S14, 98):.1f})" in vtab_gpu.__doc__
    one = gpu_hours.paper_task().hours(gpu_hours.VIT_B16, 224)
    assert f"about {one:.1f} GPU hours a task and {19 * one:.0f} in all" in vtab_paper.__doc__
    assert f"about {19 * one:.0f} GPU hours" in paper.needs[-1]
    assert f"About {one:.1f} GPU hours a task" in vtab_paper.CONFIG.read_text()


SUBNETS = ("glora_searched", "glora_random")


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
            hits += difference.interval[0] <= 2.0 <= difference.interval[1]
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
        assert "NOT above the linear probe: GLoRA, searched on gtsrb, LoRA on gtsrb" in summary

    def test_few_shot_pairs_by_shots(self):
        cells = {}
        for shots in (1, 4):
            for seed in range(3):
                for method, gain in (("lora", 0.0), ("glora_searched", 0.06)):
                    cells[f"few-cifar10-{method}-k{shots}-s{seed}"] = run(0.2 + 0.1 * shots + gain, 7 * seed + shots)
        # The sizes of a draw share their test images: they are one pair, and a draw that lacks a size is left out.
        assert paired(cells, "glora_searched", "lora", "few").pairs == 3
        assert paired({**cells, "few-cifar10-lora-k1-s3": run(0.3, 1)}, "glora_searched", "lora", "few").pairs == 3
        assert vtab_fewshot.CHECK.judge(cells).verdict is Verdict.UNDECIDED  # rates of the full training set
        for gain, verdict in ((0.06, Verdict.REPRODUCED), (-0.06, Verdict.NOT_REPRODUCED)):
            own = {
                name: run(0.2 + 0.1 * shots + (gain if "searched" in name else 0.0), 7 * seed + shots, 1000)
                for shots in vtab_fewshot.SHOTS
                for seed in range(3)
                for name in (f"fewown-cifar10-{method}-k{shots}-s{seed}" for method in ("lora", "glora_searched"))
            }
            assert vtab_fewshot.CHECK.judge(cells | own).verdict is verdict
        assert "linear probe" not in vtab_fewshot.CHECK.judge(cells).summary
        probed = cells | {f"few-cifar10-probe-k{shots}-s0": run(0.45, 3) for shots in (1, 4)}
        assert vtab_fewshot.CHECK.judge(probed).summary.endswith("probe: LoRA at 1; GLoRA, searched at 1")
        axis = vtab_fewshot.CHECK.draw(cells).axes[0]
        assert axis.get_legend_handles_labels()[1] == ["LoRA", "GLoRA, searched"]

    def test_layers_and_merging(self):
        import glora

        layer = {"random_mlp_share": 0.5, "random_spread": 0.02, "by_tensor": dict.fromkeys("ABCDE", 10)}
        subnet = {
            "layer.0.q_proj": glora.LayerConfig(A="vector", rank=4),
            "layer.3.fc1": glora.LayerConfig(B="lora", rank=4),
        }
        config = glora.GLoRAConfig.explicit(subnet).to_dict()
        found = vtab_layers.by_type(config)
        assert found.sum() == 384 + 4 * (1536 + 384)
        assert found[0].tolist() == [384, 0, 0, 0, 0]
        for share, verdict in ((0.6, "reproduced"), (0.4, "not reproduced"), (0.505, "undecided")):
            cells = {"supernet-cifar10-s0": {"config": config, "layers": {**layer, "mlp_share": share}}}
            assert vtab_layers.CHECK.judge(cells).verdict == verdict
            assert vtab_layers.CHECK.draw(cells) is not None
        for ratio, verdict in ((1.01, "reproduced"), (1.2, "not reproduced")):
            figures = {"ratio": {"merged": ratio, "unmerged": 1.4}, "error": {"merged": 0.01, "unmerged": 0.01}}
            assert vtab_merging.CHECK.judge({"latency-vit": figures}).verdict == verdict

    def test_corruptions(self):
        def judged(level: float, seed: int) -> dict:
            names = [f"{kind}-{severity}" for kind in "abc" for severity in (3, 5)]
            clean = {"clean": run(0.6, seed, 300)["right"]}
            return {**run(0.6, 0), "corruptions": clean | {name: run(level, seed, 300)["right"] for name in names}}

        cells = {
            f"final-{task}-{method}-s{seed}": judged(level, seed)
            for task in ("cifar10", "gtsrb")
            for method, level in (("lora", 0.4), ("glora_searched", 0.55))
            for seed in range(3)
        }
        assert vtab_corruptions.CHECK.judge(cells).verdict is Verdict.REPRODUCED
        one = {cell: figures for cell, figures in cells.items() if "gtsrb" in cell}
        outcome = vtab_corruptions.CHECK.judge(one)
        assert outcome.verdict is Verdict.UNDECIDED
        assert "1 of 2 tasks" in outcome.summary
        ticks = vtab_corruptions.CHECK.draw(cells).axes[0].get_xticklabels()
        assert [tick.get_text() for tick in ticks][:2] == ["clean", "a, 3"]

    def test_corruptions_of_one_image_do_not_count_as_many(self):
        """Two methods that are equal, each wrong under all corruptions of an image or under none."""
        decided = 0
        for trial in range(60):
            draw = np.random.default_rng(trial)
            cells = {
                f"final-{task}-{method}-s{seed}": {"corruptions": dict.fromkeys("abcdefgh", answers)}
                for task in ("cifar10", "gtsrb")
                for method in ("lora", "glora_searched")
                for seed in range(3)
                for answers in [pack(draw.random(300) < 0.5)]
            }
            for figures in cells.values():
                figures["corruptions"]["clean"] = figures["corruptions"]["a"]
            decided += vtab_corruptions.CHECK.judge(cells).verdict is not Verdict.UNDECIDED
        assert decided <= 5

    def test_search_savings(self):
        one = {"images": 30, "images_of_plain_evaluation": 60, "candidates": 20, "cached": 5, "stopped": 10}
        search = {**one, "validation_accuracy": 70.0}
        cells = {
            f"supernet-gtsrb-s{seed}": {"config": {}, "search": search, "inherited": run(0.5, seed)} for seed in (0, 1)
        }
        outcome = vtab_search.CHECK.judge(cells)
        assert "2 searches asked 50% of the images" in outcome.summary
        rows = {row.name: row.ours for row in outcome.rows}
        assert rows["searches: images of plain evaluation / images asked"] == 2.0
        assert rows["searches: candidates answered from earlier ones (%)"] == 25.0
        assert rows["gtsrb, seed 1: best on val200 with inherited weights (%)"] == 70.0

    def test_subnets_have_rates_of_their_own(self):
        shared = {f"final-{t}-{m}-s{s}": run(0.5, s) for t in ("cifar10", "gtsrb") for m in SUBNETS for s in range(3)}
        assert vtab_search.CHECK.judge(shared).verdict is Verdict.UNDECIDED
        for gain, verdict in ((0.1, Verdict.REPRODUCED), (-0.1, Verdict.NOT_REPRODUCED)):
            levels = {"glora_searched": 0.5 + gain, "glora_random": 0.5}
            own = {
                f"own-{task}-{method}-s{seed}": run(level, seed + len(task), 1000)
                for task in ("cifar10", "gtsrb")
                for method, level in levels.items()
                for seed in range(3)
            }
            assert vtab_search.CHECK.judge(shared | own).verdict is verdict

    def test_leak(self):
        def cells(leak: float) -> dict:
            found = {
                f"supernet-{task}-s{seed}": run(0.5, seed, 1000) for task in ("cifar10", "gtsrb") for seed in range(3)
            }
            return {
                name: {
                    "config": {},
                    "inherited": one,
                    "search": {"validation_accuracy": one["accuracy"] + leak + i % 2},
                }
                for i, (name, one) in enumerate(found.items())
            }

        assert vtab_leak.CHECK.judge(cells(5.0)).verdict is Verdict.REPRODUCED
        assert vtab_leak.CHECK.judge(cells(-5.0)).verdict is Verdict.NOT_REPRODUCED
        assert vtab_leak.CHECK.judge(cells(-0.5)).verdict is Verdict.UNDECIDED
        assert vtab_leak.CHECK.draw(cells(5.0)) is not None

    def test_one_seed_has_no_error(self):
        """A standard error that is not known is left out, not shown as "nan"."""
        rows = vtab.CHECK.judge(finals(0.05, 1)).rows
        assert all(row.error is None or np.isfinite(row.error) for row in rows)
        assert vtab.CHECK.draw(finals(0.05, 1)) is not None


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
