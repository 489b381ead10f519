"""How long a run is, and how the learning rate moves."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from glora.runs.settings import AlphaSettings, TrainingSettings
from glora.training.loop import check
from glora.training.plan import learning_rate_factor
from tests.glora.blobs import SETTINGS, Blobs, prepared


def factors(total: int = 100, **options) -> np.ndarray:
    settings = TrainingSettings(steps=total, **options)
    return np.array([learning_rate_factor(settings, step, total) for step in range(1, total + 1)])


class TestSchedules:
    @pytest.mark.parametrize("schedule", ["linear", "cosine"])
    @pytest.mark.parametrize("floor", [0.0, 0.1, 1.0])
    def test_from_the_peak_down_to_the_floor(self, schedule, floor):
        found = factors(schedule=schedule, floor=floor)
        plain = factors(schedule=schedule)
        assert found[0] == 1
        assert np.all(np.diff(found) <= 0)
        assert np.allclose(found, floor + (1 - floor) * plain)
        assert floor <= found[-1] <= floor + 0.011

    def test_cosine_is_half_way_in_the_middle(self):
        assert factors(schedule="cosine", floor=0.1)[50] == pytest.approx(0.55)

    def test_warmup_rises_to_the_peak_and_constant_stays(self):
        found = factors(schedule="constant", warmup=0.1, floor=0.3)
        assert np.allclose(found[:10], np.arange(1, 11) / 11)
        assert np.all(found[10:] == 1)

    @pytest.mark.parametrize("floor", [-0.1, 1.5, "low", float("nan")])
    def test_impossible_floors(self, floor):
        with pytest.raises(ValueError, match="floor"):
            TrainingSettings(floor=floor)


@pytest.mark.parametrize(
    ("length", "message"),
    [
        ({"steps": 1}, r"steps=1 leaves no adapter step once α's passes \(alpha.every=1\) are taken off"),
        ({"epochs": 0.2}, r"epochs=0.2 of 60 examples leaves no adapter step once"),
        ({"epochs": 0.1}, r"epochs=0.1 of 60 examples is less than one batch of batch_size=8"),
    ],
)
def test_too_short_for_a_step(length: dict[str, float], message: str) -> None:
    task = Blobs()
    settings = replace(SETTINGS, **{"steps": None, **length}, alpha=AlphaSettings(every=1))
    with pytest.raises(ValueError, match=message):
        check(prepared(task), task, settings)
