"""The command: a run from a file to a merged model, and errors that say what to do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from glora.cli.commands import main
from paper_checks.demo.tiny_text import save_model, save_reviews

CONFIGS = Path(__file__).parents[3] / "configs"
CONFIG = """
[task]
name = "glue"
dataset = "sst2"
folder = "{data}"
model = "{model}"
pooling = "mean"
max_length = 64

[method]
name = "alpha_lora"
rank = 4

[training]
epochs = 20
batch_size = 16
lr = 3e-2
evaluate_every = 10
device = "cpu"
alpha = {{ every = 2 }}
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    path = folder / "tiny.toml"
    path.write_text(CONFIG.format(data=save_reviews(folder / "data"), model=save_model(folder / "model")))
    return path


def call(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    assert main([*map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_from_a_file_to_a_merged_model(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    result = call(capsys, "tune", config, "--set", f"out={out}")
    assert result["run"] == str(out)
    assert result["test"]["accuracy"] > 60
    assert sorted(path.name for path in out.iterdir()) == [
        "adapter", "best.safetensors", "last.previous.safetensors",
        "last.safetensors", "metrics.jsonl", "result.json", "run.json",
    ]  # fmt: skip
    again = call(capsys, "tune", config, "--set", f"out={out}", "--resume")
    assert again == result
    evaluated = call(capsys, "evaluate", out)
    assert evaluated["accuracy"] == result["test"]["accuracy"]
    found = call(capsys, "inspect", out)
    assert found["complete"]
    assert found["adapter"]["layers"] == {"A=vector B=lora(4) D=vector tied": 12}
    assert len(found["adapter"]["alpha"]) == 12
    call(capsys, "merge", out)

    from safetensors.torch import load_file

    from glora.runs.config import read
    from glora.tasks import make_task

    options = read(config).task_options
    task = make_task("glue", options)
    plain = task.build_model(99)
    plain.load_state_dict(load_file(out / "merged" / "model.safetensors"))
    assert task.metrics(plain, "test")["accuracy"] == result["test"]["accuracy"]


@pytest.mark.filterwarnings(
    "ignore:a step of 1 where nothing could be measured:UserWarning"
)  # D of a zero bias has no step
@pytest.mark.parametrize("method", ["full", "linear_probe", "glora", "custom"])
def test_methods(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], method: str) -> None:
    changes = [
        f"out={tmp_path / 'run'}",
        f"method={{name='{method}'}}",
        "training.epochs=1",
        "training.evaluate_every=0",
    ]
    if method == "custom":
        changes += ["method.E=vector", "method.target=(query|value)$"]
    result = call(capsys, "tune", config, *(word for change in changes for word in ("--set", change)))
    assert call(capsys, "evaluate", tmp_path / "run")["accuracy"] == result["test"]["accuracy"]


def test_a_searched_configuration(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "found.json"
    path.write_text(json.dumps({"target": ["query"], "A": "scalar", "overrides": {"1": {"B": "lora", "rank": 2}}}))
    changes = [f"out={tmp_path / 'run'}", f"method={{name='file', path='{path}'}}", "training.epochs=1"]
    result = call(capsys, "tune", config, *(word for change in changes for word in ("--set", change)))
    head, scalar, low_rank = 2 * 32 + 2, 1, 2 * (32 + 32)
    assert result["parameters"] == head + scalar + low_rank


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["training.lr=fast"], "lr must be a finite number ≥ 0, got 'fast'"),
        (["training.epoch=3"], "section [training] has unknown keys ['epoch']"),
        (["training.alpha.mode=sometimes"], "alpha.mode must be one of fixed, joint, scheduled"),
        (["method.name=dora"], "method.name must be one of lora"),
        (["method.rnk=3"], "method 'alpha_lora' has no option 'rnk'; it has rank, target, alpha"),
        (["task.dataset=imdb"], "task.dataset must be one of"),
        (["task.folder=/nowhere"], "does not exist"),
        (["nonsense"], "--set must look like"),
        (["training.steps=3"], "not both"),
        (["training.patience=3", "training.evaluate_every=0"], "give evaluate_every as well"),
        (["training.split=train+validation"], "leaves no validation examples"),
        (["method.target=qury"], "near misses: query"),
        (["training.alpha.every=900"], "training.alpha.every=900, but the run has only"),
        (["training.alpha.fraction=0.001"], "alpha.fraction=0.001 of 64 training examples"),
        (["training.warmup=abc"], "warmup is a fraction of the steps in [0, 1), got 'abc'"),
        (["training.epochs='three'"], "epochs must be a positive number, got 'three'"),
        (["training.alpha.fraction=abc"], "alpha.fraction must lie between 0 and 1, got 'abc'"),
        (["training.alpha=3"], "section [training.alpha] must be a table, got 3"),
        (["training.betas=['a','b']"], "betas must be two numbers in [0, 1), got ['a', 'b']"),
        (["task.validation_fraction=abc"], "task.validation_fraction must be a number, got 'abc'"),
        (["task.dataset=[1]"], "task.dataset must be a text, got [1]"),
        (["task.model=3"], "task.model must be a text, got 3"),
        (["task.folder=3"], "task.folder must be a text, got 3"),
        (["task.subset_seed='x'"], "task.subset_seed must be a whole number, got 'x'"),
        (["task.max_length=true"], "task.max_length must be a whole number, got True"),
        (["test='no'"], "test must be true or false, got 'no'"),
        (["method={name='custom', overrides=3}"], "overrides must be a table, got 3"),
        (["method={name='custom', overrides={query=3}}"], "the configuration of a layer must be a table, got 3"),
        (["method={name='lora', overrides=3}"], "overrides must be a table, got 3"),
        (["method.dropout=abc"], "dropout must lie in [0, 1), got 'abc'"),
        (["method.alpha=abc"], "alpha must be finite, got 'abc'"),
        (["task.max_length=65"], "task.max_length=65 is more than the 64 positions of task.model="),
        (["training.epochs=0.1"], "is less than one batch of batch_size=16"),
    ],
)
def test_errors_come_before_any_training(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: list[str], message: str
) -> None:
    words = [word for change in (*changes, f"out={tmp_path / 'run'}") for word in ("--set", change)]
    assert main(["tune", str(config), *words]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.out == ""
    assert not (tmp_path / "run").exists()


def test_a_corrected_command_runs_in_the_folder_of_a_refused_one(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--set", f"out={tmp_path / 'run'}", "--set", "training.epochs=1"]
    assert main(["tune", str(config), *words, "--set", "training.batch_size=100"]) == 2
    assert "is less than one batch" in capsys.readouterr().err
    call(capsys, "tune", config, *words)


@pytest.mark.parametrize(
    ("method", "changes", "expected"),
    [
        ("alpha_lora", [], ("scheduled", 5e-3)),
        ("ssf", [], ("joint", 3e-2)),
        ("custom", ["training.alpha.lr=0.1"], ("joint", 0.1)),
        ("output_scale", ["training.alpha.mode=scheduled"], ("scheduled", 5e-3)),
        ("ssf", ["training.alpha.mode=joint"], ("joint", 5e-3)),
    ],
)
def test_algorithm_1_is_the_default_of_alpha_lora_alone(
    config: Path, method: str, changes: list[str], expected: tuple[str, float]
) -> None:
    from glora.runs.config import RunConfig, read

    run = read(config, [f"method={{name='{method}'}}", *changes])
    assert (run.training.alpha.mode, run.training.alpha.lr) == expected
    assert run.training.alpha.every == 2
    assert RunConfig.from_dict(json.loads(json.dumps(run.to_dict()))) == run  # as a run is opened again


def test_a_folder_that_is_no_text(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tune", str(config), "--set", "out=3"]) == 2
    assert "out must be a text, got 3" in capsys.readouterr().err


def test_folders_that_are_no_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("evaluate", "merge"):
        assert main([command, str(tmp_path)]) == 2
        assert "is not the folder of a run" in capsys.readouterr().err
    assert main(["tune", str(tmp_path / "none.toml")]) == 2
    assert "does not exist" in capsys.readouterr().err
    assert main(["inspect", str(tmp_path)]) == 2
    assert "is no run, no adapter and no model" in capsys.readouterr().err


def test_a_model_is_inspected_without_its_weights(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = call(capsys, "inspect", config.parent / "model")
    assert found["class"] == "BertModel"
    assert found["linear_layers"]["query"] == "2 of 32×32"
    assert found["trained_by"]["lora"] > 0


def test_divergence_has_an_exit_code(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--set", "training.lr=1e30", "--set", "training.clip=0", "--set", f"out={tmp_path / 'run'}"]
    assert main(["tune", str(config), *words]) == 1
    assert "Try a smaller lr" in capsys.readouterr().err


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert all(command in text for command in ("tune", "evaluate", "merge", "inspect"))


def test_only_the_first_process_prints_the_answer(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    assert main(["inspect", str(config.parent / "model")]) == 0
    assert capsys.readouterr().out == ""


def test_the_seed_decides(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def weights(name: str, seed: int) -> dict[str, torch.Tensor]:
        from safetensors.torch import load_file

        out = tmp_path / name
        changes = (f"out={out}", f"training.seed={seed}", "training.epochs=1")
        call(capsys, "tune", config, *(word for change in changes for word in ("--set", change)))
        return load_file(next((out / "adapter").glob("adapter-*.safetensors")))

    one, same, other = weights("a", 1), weights("b", 1), weights("c", 2)
    assert all(torch.equal(one[key], same[key]) for key in one)
    assert not all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.toml")), ids=lambda path: path.stem)
def test_shipped_configurations_are_understood(path: Path) -> None:
    from glora.runs.config import read
    from glora.tasks import make_task
    from glora.tuning.methods import configuration

    config = read(path)
    make_task(config.task["name"], config.task_options)
    if config.method["name"] != "supernet":  # the search's own
        configuration(config.method["name"], config.method_options, ("head",))


def test_a_run_is_evaluated_on_another_task_and_without_its_adapter(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    call(capsys, "tune", config, "--set", f"out={out}", "--set", "training.epochs=1")
    same = call(capsys, "evaluate", out, "--task", config)
    assert same == call(capsys, "evaluate", out)
    base = call(capsys, "evaluate", out, "--base")
    assert base["loss"] != same["loss"]
    (out / "adapter" / "adapter.json").write_text("{}")
    assert main(["inspect", str(out)]) == 2
    assert "is not an adapter" in capsys.readouterr().err


def test_a_run_is_not_asked_what_its_model_cannot_answer(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, text, other = tmp_path / "run", config.read_text(), tmp_path / "other.toml"
    call(capsys, "tune", config, "--set", f"out={out}", "--set", "training.epochs=1")
    model = f'model = "{config.parent / "model"}"'
    cases = {
        '[task]\nname = "multiple_choice"\nfile = "x.jsonl"\nmodel = "m"\n[method]\nname = "lora"\n': (
            "the run's task is Glue, whose model cannot be asked a task of MultipleChoice"
        ),
        text.replace(model, 'model = "elsewhere"'): "task.model='elsewhere', but the run tuned",
        text.replace('"sst2"', '"mnli"'): "the run's model has 2 outputs, the task needs 3",
    }
    for content, message in cases.items():
        other.write_text(content)
        assert main(["evaluate", str(out), "--task", str(other)]) == 2
        assert message in capsys.readouterr().err
    (out / "result.json").write_text("{")
    assert main(["evaluate", str(out)]) == 2
    assert "result.json' is not valid JSON" in capsys.readouterr().err
