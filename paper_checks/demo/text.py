"""The demo's text part: a tiny encoder learns plain opinions, then "not", by four methods at equal work."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

from paper_checks.demo.tiny_text import save_model, save_reviews, save_tokenizer
from paper_checks.report import page
from paper_checks.report.page import Section, number
from paper_checks.statistics.threads import one_thread
from rmt.plot import COLOURS, legend, name_axes, panels

METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "linear probe": ("linear_probe", {}),
    "LoRA": ("lora", {"rank": 4}),
    "α-LoRA, Algorithm 1": ("alpha_lora", {"rank": 4}),
    "GLoRA (A vector, B low-rank, E vector)": (
        "custom",
        {"A": "vector", "B": "lora", "E": "vector", "rank": 4, "steps": "raw"},
    ),
}
SOURCE_EPOCHS, TARGET_EPOCHS, RATE = 10.0, 10.0, 1e-2


def text() -> Section:
    """Tune a tiny pretrained encoder to a second task; accuracies, learning curves, trained α."""
    with one_thread():  # tensors this small are computed sooner than handed to another thread
        return _text()


def _text() -> Section:
    import glora
    from glora.runs.settings import AlphaSettings, TrainingSettings
    from glora.tasks.text.glue import Glue
    from glora.tasks.text.loading import quiet
    from glora.training.loop import train
    from glora.tuning import methods

    start = time.perf_counter()
    rows, curves = [], {}
    scales: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        source = Glue(
            dataset="sst2",
            model=str(save_model(folder / "random", initializer_range=0.1)),
            folder=str(save_reviews(folder / "plain", 600, 200, negated=0.1)),
            pooling="mean",
        )
        model: Any = source.build_model(0)
        train(model, source, TrainingSettings(epochs=SOURCE_EPOCHS, batch_size=32, lr=3e-3, device="cpu"))
        source_accuracy = source.metrics(model, "test")["accuracy"]
        with quiet():
            model.encoder.save_pretrained(folder / "pretrained")
        save_tokenizer(folder / "pretrained")

        target = Glue(
            dataset="sst2",
            model=str(folder / "pretrained"),
            folder=str(save_reviews(folder / "negated", 300, 400, negated=0.5)),
            pooling="mean",
        )
        untuned = target.metrics(model, "test")["accuracy"]
        for label, (name, options) in METHODS.items():
            tuned = target.build_model(1)
            methods.apply(tuned, name, options, target.heads)
            parameters = sum(p.numel() for p in tuned.parameters() if p.requires_grad)
            mode = "scheduled" if name == "alpha_lora" else "joint"
            settings = TrainingSettings(
                epochs=TARGET_EPOCHS,
                batch_size=16,
                lr=RATE,
                evaluate_every=15,
                keep="last",
                device="cpu",
                alpha=AlphaSettings(mode=mode, every=5, lr=2e-2),
            )
            done = train(tuned, target, settings)
            accuracy = target.metrics(tuned, "test")["accuracy"]
            with glora.merged(tuned):
                merged = target.metrics(tuned, "test")["accuracy"]
            rows.append([label, f"{parameters:,}", f"{done.passes:,}", number(accuracy), number(merged)])
            curves[label] = [
                (line["step"], line["validation"]["accuracy"]) for line in done.history if "validation" in line
            ]
            if name == "alpha_lora":
                scales = glora.alphas(tuned)

    figure, axes = panels(2, width=4.4, height=3.2)
    for colour, (label, curve) in zip(COLOURS, curves.items(), strict=False):
        axes[0, 0].plot(*zip(*curve, strict=True), color=colour, linewidth=1.4, label=label)
    name_axes(axes[0, 0], "adapter steps", "accuracy on validation (%)", "learning “not”")
    legend(axes[0, 0])
    values = [alpha.numpy() for alpha in scales.values()]
    axes[0, 1].boxplot(values, orientation="horizontal", widths=0.6, showfliers=False)
    axes[0, 1].axvline(1.0, color=COLOURS[1], linewidth=0.9)
    axes[0, 1].set_yticklabels([name.removeprefix("encoder.encoder.layer.") for name in scales], fontsize=6)
    name_axes(axes[0, 1], "trained α, one a row of the weight", "", "α-LoRA’s scale, layer by layer")
    seconds = time.perf_counter() - start
    body = (
        "<p>A two-layer encoder with random weights learns to tell opinions, few of them turned over by “not” "
        f"({source_accuracy:.0f} % right on its test). Where “not” turns half of them over it is right in "
        f"{untuned:.0f} %. Each method below has the same number of passes to learn that; α's own batches come out of "
        f"its share and are never the adapter's. All of it took {seconds:.0f} s. These are toys with one seed: how the "
        "methods compare on real text is the business of the checks.</p>"
        + page.image(figure, "learning curves of four methods, and the trained scales of alpha-LoRA")
        + page.table(["method", "parameters", "passes", "test (%)", "merged (%)"], rows, numbers=(1, 2, 3, 4))
    )
    return Section("text", "Text: a second task for a tiny encoder", body)
