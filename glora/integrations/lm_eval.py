"""Handing a tuned language model to lm-evaluation-harness, the package `lm_eval`.

    python -m glora.harness runs/llama_alpaca --tasks hellaswag --few-shot 10
    python -m glora.harness runs/smollm_alpaca --tasks arc_easy_local --include-path configs/lm_eval --limit 50 --json
    python -m glora.harness runs/smollm_alpaca --tasks arc_easy_local --include-path configs/lm_eval --base

The run's adapter is merged into the weights for the time of the evaluation, so the harness sees a plain transformers
model, with the tokenizer of the run's task. Benchmarks come from the Hugging Face hub, or from local files that task
files in ``--include-path`` name; ``configs/lm_eval`` has examples. `glora evaluate RUN --task …` asks multiple-choice
files without the harness.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

from glora._checks import choice, whole
from glora.runs.settings import PRECISIONS
from glora.runs.shipped import resolve

MISSING = "needs lm-evaluation-harness; pip install 'rescale-and-adapt[lm]'"


def evaluate(
    folder: str,
    tasks: Sequence[str],
    *,
    include_path: str | None = None,
    limit: int | None = None,
    few_shot: int | None = None,
    batch_size: int = 8,
    base: bool = False,
    device: str = "auto",
    precision: str = "float32",
) -> dict[str, dict[str, Any]]:
    """Evaluate the model of a complete run on tasks of the harness.

    Args:
        folder: of a run whose task is a language model's (instruct, multiple_choice).
        tasks: names of the harness's tasks or groups; patterns such as ``mmlu_*`` work.
        include_path: folder with further task files (YAML); ``pkg:lm_eval`` is the one that comes with glora.
        limit: examples of each task; None takes all.
        few_shot: worked examples before each question; None takes what the task's file says.
        batch_size: sequences that go through the model at once.
        base: evaluate the model before tuning.
        device: "cpu", "cuda", …; "auto" takes CUDA where there is one.
        precision: "float32", or "bfloat16" autocast; the weights stay in float32.

    Returns:
        For each task (and group) its figures under the harness's own names, such as ``"acc,none"`` and
        ``"acc_stderr,none"``, the standard error.

    Raises:
        ValueError: the harness is not installed, a number is out of its range, the folder holds no complete run of a
            language model, or the harness knows no such task.
    """
    for name, value in (("limit", limit), ("batch_size", batch_size)):
        if value is not None:
            whole(name, value, 1)
    if few_shot is not None:
        whole("few_shot", few_shot, 0)
    choice("precision", precision, PRECISIONS)
    try:
        from lm_eval import simple_evaluate
        from lm_eval.models.huggingface import HFLM
        from lm_eval.tasks import TaskManager
    except ImportError as error:
        raise ValueError(f"{MISSING} (import failed: {error})") from None
    from contextlib import nullcontext

    import torch

    from glora.model.attaching import disabled
    from glora.model.merging import merged
    from glora.model.state import get_state
    from glora.runs.folder import Run
    from glora.tasks.text.causal import CausalTask
    from glora.tuning.restore import restore

    manager = TaskManager(include_path=None if include_path is None else str(resolve(include_path)))
    names = {wanted: manager.match_tasks([wanted]) for wanted in tasks}
    unknown = [wanted for wanted, found in names.items() if not found]
    if unknown or not names:
        raise ValueError(
            f"tasks={list(tasks)!r}: the harness has no task {', '.join(unknown)}; `lm-eval ls tasks` lists its own, "
            "and include_path adds a folder of task files"
        )
    model, task = restore(Run.open(folder))
    if not isinstance(task, CausalTask):
        raise ValueError(f"the run in {folder!r} is of task {type(task).__name__}; the harness takes language models")
    adapted = get_state(model) is not None
    if base and not adapted:
        raise ValueError(f"the run in {folder!r} trained the model in full; base=True needs an adapter")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    model.to(device).eval()
    mixed = None if precision == "float32" else precision
    with disabled(model) if base else merged(model) if adapted else nullcontext():
        found = simple_evaluate(
            model=HFLM(model, tokenizer=task.tokenizer, batch_size=batch_size, mixed_precision_dtype=mixed),
            tasks=sorted({name for matches in names.values() for name in matches}),
            num_fewshot=few_shot,
            limit=limit,
            task_manager=manager,
            log_samples=False,
        )
    return found["results"]


def build_parser() -> argparse.ArgumentParser:
    """The parser of ``python -m glora.harness``."""
    parser = argparse.ArgumentParser(
        prog="python -m glora.harness",
        description="Evaluate a tuned language model with lm-evaluation-harness.",
        epilog="exit codes: 0 done; 2 bad input, or the harness is missing; 130 interrupted",
        allow_abbrev=False,
    )
    parser.add_argument("folder", metavar="RUN", help="folder of a run")
    parser.add_argument("--tasks", required=True, nargs="+", metavar="NAME", help="tasks or groups of the harness")
    parser.add_argument("--include-path", metavar="DIR", help="folder with further task files")
    parser.add_argument("--limit", type=int, metavar="N", help="examples of each task (default all)")
    parser.add_argument("--few-shot", type=int, metavar="K", help="worked examples (default: as the task says)")
    parser.add_argument("--batch-size", type=int, default=8, metavar="N", help="sequences at once (default 8)")
    parser.add_argument("--base", action="store_true", help="the model before tuning")
    parser.add_argument("--device", default="auto", help="cpu, cuda, … (default: cuda where there is one)")
    parser.add_argument("--precision", default="float32", choices=PRECISIONS, help="of the computation")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    arguments = vars(build_parser().parse_args(argv))
    as_json = arguments.pop("json")
    try:
        results = evaluate(**arguments)
    except (ValueError, OSError) as error:
        print(f"glora.harness: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("glora.harness: interrupted", file=sys.stderr)
        return 130
    if as_json:
        print(json.dumps({"run": arguments["folder"], "base": arguments["base"], "results": results}, default=str))
        return 0
    for name, figures in results.items():
        numbers = {key: value for key, value in figures.items() if isinstance(value, int | float)}
        print(f"{name}: " + ", ".join(f"{key} {value:.4g}" for key, value in numbers.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
