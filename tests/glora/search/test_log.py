"""The log of a search: what a kill costs."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import glora
from glora.engines.random import Random
from glora.engines.space import SearchSpace
from glora.search.log import genome_text
from glora.search.loop import search
from tests.glora.toy import BUDGET, Points, evolution, toy_supernet


class TestResume:
    def test_a_log_cut_anywhere_ends_the_same(self, tmp_path):
        supernet, task = toy_supernet(), Points()
        whole = search(supernet, task, evolution(supernet), folder=tmp_path / "whole")
        log = (tmp_path / "whole" / "candidates.jsonl").read_text()
        for number, cut in enumerate(np.random.default_rng(0).integers(0, len(log), 6)):
            folder = tmp_path / str(number)
            folder.mkdir()
            (folder / "search.json").write_text((tmp_path / "whole" / "search.json").read_text())
            (folder / "candidates.jsonl").write_text(log[:cut])  # mostly in the middle of a line
            again = search(supernet, task, evolution(supernet), folder=folder, resume=True)
            assert genome_text(again.best.genome) == genome_text(whole.best.genome)
            assert again.images == whole.images
            assert (folder / "candidates.jsonl").read_text() == log

    def test_another_search_is_refused(self, tmp_path):
        supernet, task = toy_supernet(), Points()
        search(supernet, task, evolution(supernet), folder=tmp_path)
        with pytest.raises(ValueError, match="holds a search already"):
            search(supernet, task, evolution(supernet), folder=tmp_path)
        with pytest.raises(ValueError, match="differs in seed"):
            search(supernet, task, evolution(supernet, seed=1), folder=tmp_path, resume=True)
        other = toy_supernet(seed=1)
        with pytest.raises(ValueError, match="differs in supernet"):
            search(other, task, evolution(other), folder=tmp_path, resume=True)

    def test_other_examples_and_structures_are_refused(self, tmp_path):
        """A log of as many examples with other labels or inputs was once continued."""

        def engine(space):
            return Random(space, BUDGET, total=3)

        supernet, task = toy_supernet(), Points()
        search(supernet, task, engine(supernet.space), folder=tmp_path)
        x, labels = task.data["validation"]
        for changed in ((x, (labels + 1) % 3), (x.flip(0), labels)):
            task.data["validation"] = changed
            with pytest.raises(ValueError, match="differs in validation;"):
                search(supernet, task, engine(supernet.space), folder=tmp_path, resume=True)
        task.data["validation"] = (x, labels)
        search(supernet, task, engine(supernet.space), folder=tmp_path, resume=True)
        supernet.space = SearchSpace(supernet.space.layers, 3, {"A": ["none", "vector"]})
        with pytest.raises(ValueError, match="differs in structures;"):
            search(supernet, task, engine(supernet.space), folder=tmp_path, resume=True)

    def test_a_full_disk_loses_nothing(self, tmp_path, monkeypatch):
        supernet, task = toy_supernet(), Points()
        whole = search(supernet, task, evolution(supernet), folder=tmp_path / "whole")
        calls, fsync = itertools.count(), os.fsync

        def full(handle):
            if next(calls) == 20:
                raise OSError(28, "No space left on device")
            return fsync(handle)

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            with pytest.raises(OSError, match="No space left"):
                search(supernet, task, evolution(supernet), folder=tmp_path / "full")
        again = search(supernet, task, evolution(supernet), folder=tmp_path / "full", resume=True)
        assert genome_text(again.best.genome) == genome_text(whole.best.genome)
        logs = [(tmp_path / name / "candidates.jsonl").read_text() for name in ("full", "whole")]
        assert logs[0] == logs[1]

    def test_sigkill(self, tmp_path):
        """Killed at random points again and again, a search ends with the log of an unbroken one."""
        root = Path(glora.__file__).parent.parent
        script = (
            "import sys; from tests.glora.toy import *;"
            "from glora.search import search; import time, torch; torch.set_num_threads(1);"
            "task = Points(); plain = task.correct;"
            "task.correct = lambda m, b: (time.sleep(0.004), plain(m, b))[1];"
            "print('ready', flush=True);"
            "s = toy_supernet(); search(s, task, evolution(s), folder=sys.argv[1], resume=True)"
        )
        rng, folder, kills = np.random.default_rng(0), tmp_path / "broken", 0
        environment = {**os.environ, "PYTHONPATH": str(root)}
        for _ in range(12):
            process = subprocess.Popen(
                [sys.executable, "-c", script, str(folder)], cwd=root, env=environment, stdout=subprocess.PIPE
            )
            process.stdout.readline()
            try:
                process.wait(timeout=0.15 + 0.3 * rng.random() if kills < 2 else 60)
                break
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait()
                kills += 1
            finally:
                process.stdout.close()
        assert process.returncode == 0
        assert kills == 2
        supernet = toy_supernet()
        search(supernet, Points(), evolution(supernet), folder=tmp_path / "whole")
        logs = [(tmp_path / name / "candidates.jsonl").read_text() for name in ("broken", "whole")]
        assert logs[0] == logs[1]
