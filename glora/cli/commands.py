"""The ``glora`` command: tune, search, evaluate, merge, inspect. A run is a file, and afterwards a folder."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import glora
from glora._files import to_json
from glora.cli import certify, init, predict, search
from glora.cli.exits import CODES, Parser, run
from glora.runs import shipped

EXAMPLES = """examples:
  glora init reviews.csv --model models/minilm-l6
  glora tune reviews.toml
  glora predict runs/reviews new.csv --csv
  glora tune --list-configs
  glora tune pkg:glue_mrpc --set task.folder=glue/mrpc
  glora tune configs/glue_mrpc.toml
  glora tune configs/glue_mrpc.toml --set method.name=lora --set training.lr=1e-3 --set out=runs/mrpc-lora
  glora tune configs/glue_mrpc.toml --resume
  glora search configs/glora_vtab_cpu.toml --set task.folder=vtab/cifar10
  glora evaluate runs/glue_mrpc --split validation
  glora evaluate runs/smollm_alpaca --task configs/arc_easy.toml --base
  glora merge runs/glue_mrpc --out merged/mrpc
  glora inspect runs/glue_mrpc
  glora certify runs/glue_mrpc
  glora certify models/minilm adapters/mrpc --batch probe.safetensors --json

A run that was interrupted continues with --resume.

""" + CODES.format(
    result="the training diverged, its figures are not finite, or a statement of certify is false (2 where it cannot "
    "be checked); 3 predict could not read some of its inputs"
)

#: What a command prints: with --json the object, else the text.
Answer = tuple[dict[str, Any], str]


def build_parser() -> argparse.ArgumentParser:
    """The parser of the ``glora`` command."""
    shape: dict[str, Any] = {
        "formatter_class": argparse.RawDescriptionHelpFormatter,
        "epilog": EXAMPLES,
        "allow_abbrev": False,
    }
    parser = Parser(
        prog="glora", description="Adapters for pretrained models: GLoRA, α-LoRA, LoRA and relatives.", **shape
    )
    parser.add_argument("--version", action="version", version=f"glora {glora.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, run: Callable[[argparse.Namespace], Answer], text: str) -> argparse.ArgumentParser:
        found = commands.add_parser(name, help=text, description=text, **shape)
        found.add_argument("--json", action="store_true", help="print JSON")
        found.set_defaults(run=run)
        return found

    init.add_arguments(command("init", init.run, init.HELP))
    tune = command("tune", _tune, "train an adapter as a TOML file says")
    tune.add_argument(
        "config",
        metavar="CONFIG.toml",
        help="sections [task], [method], [training]; pkg:NAME takes one of --list-configs",
    )
    tune.add_argument(
        "--list-configs", action=_ListConfigs, nargs=0, help="list the run files that come with glora, and exit"
    )
    tune.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="change a value of the file; repeat for several"
    )
    tune.add_argument("--resume", action="store_true", help="continue the run in the folder where it stopped")
    search.add_arguments(command("search", search.run, search.HELP))
    evaluate = command("evaluate", _evaluate, "metrics of a finished run on a split")
    evaluate.add_argument("folder", metavar="RUN", help="folder of a run")
    evaluate.add_argument(
        "--task", metavar="CONFIG.toml", help="evaluate on the [task] of another file, such as multiple choice"
    )
    evaluate.add_argument("--base", action="store_true", help="the model before tuning")
    evaluate.add_argument("--split", default="test", help="train, validation, train+validation or test (default)")
    predict.add_arguments(command("predict", predict.run, predict.HELP))
    merge = command("merge", _merge, "write the tuned model as a plain checkpoint that loads without glora")
    merge.add_argument("folder", metavar="RUN", help="folder of a run")
    merge.add_argument("--out", help="where to write (default RUN/merged)")
    inspect = command("inspect", _inspect, "what a run, an adapter or a model holds")
    inspect.add_argument("what", metavar="RUN|ADAPTER|MODEL", help="folder, or name of a model on the hub")
    certify.add_arguments(command("certify", certify.run, certify.HELP))
    return parser


class _ListConfigs(argparse.Action):
    """Like ``--version``: print and exit, whatever else is required."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        found = shipped.shipped()
        width = max(map(len, found))
        print("\n".join(f"{shipped.PREFIX}{name:<{width}}  {text}" for name, text in found.items()))
        parser.exit()


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    arguments = build_parser().parse_args(argv)
    from glora.training.loop import TrainingDiverged
    from glora.training.processes import is_main_process

    def command() -> int:
        answer, text = arguments.run(arguments)
        if is_main_process() and not answer.get("printed"):  # all have the same answer
            print(to_json(answer) if arguments.json else text)
        return int(answer.get("exit_code", 0))

    interrupted = "interrupted; continue with --resume"
    return run(f"glora {arguments.command}", command, results=(TrainingDiverged,), interrupted=interrupted)


def _tune(arguments: argparse.Namespace) -> Answer:
    from glora.runs.config import read
    from glora.tuning.tune import tune

    config = read(arguments.config, arguments.set)
    result = tune(config, resume=arguments.resume)
    return {"run": config.out, **result}, f"{_listing(result)}\nrun: {config.out}"


def _evaluate(arguments: argparse.Namespace) -> Answer:
    from contextlib import nullcontext

    from glora.model.attaching import disabled
    from glora.model.state import get_state
    from glora.runs.config import read
    from glora.runs.folder import Run
    from glora.tasks import make_task
    from glora.training.loop import require_finite
    from glora.tuning.restore import require_same_model, restore

    model, task = restore(Run.open(arguments.folder))
    if arguments.base and get_state(model) is None:
        raise ValueError(f"the run in {arguments.folder!r} trained the model in full; --base needs an adapter")
    if arguments.task is not None:
        other = read(arguments.task)
        asked = make_task(other.task["name"], other.task_options)
        require_same_model(task, asked)
        asked.check()
        task = asked
    with disabled(model) if arguments.base else nullcontext():
        metrics = task.metrics(model, arguments.split)
    require_finite(metrics, f"split {arguments.split!r}")
    return {"run": arguments.folder, "split": arguments.split, **metrics}, _listing(metrics)


def _merge(arguments: argparse.Namespace) -> Answer:
    from pathlib import Path

    from glora.model.merging import export
    from glora.model.state import get_state
    from glora.runs.folder import Run
    from glora.tuning.restore import restore

    model, _ = restore(Run.open(arguments.folder))
    if get_state(model) is None:
        raise ValueError(f"the run in {arguments.folder!r} trained the model in full; there is no adapter to merge")
    out = arguments.out or str(Path(arguments.folder, "merged"))
    new_biases = export(model, out)
    return {"run": arguments.folder, "out": out, "new_biases": new_biases}, f"written to {out}"


def _inspect(arguments: argparse.Namespace) -> Answer:
    from glora.tuning.inspect import inspect

    answer = inspect(arguments.what)
    return answer, _listing(answer)


def _listing(values: dict[str, Any], indent: str = "") -> str:
    """Nested tables as indented lines ``name: value``."""
    lines = []
    for key, value in values.items():
        if isinstance(value, dict):
            lines += [f"{indent}{key}:", _listing(value, indent + "  ")]
        else:
            lines.append(f"{indent}{key}: {value:.6g}" if isinstance(value, float) else f"{indent}{key}: {value}")
    return "\n".join(lines)
