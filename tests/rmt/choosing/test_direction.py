from __future__ import annotations

import numpy as np
import pytest

from rmt.choosing.direction import best_direction, scales, snr


def test_the_direction_beats_a_grid():
    rng = np.random.default_rng(0)
    for _ in range(20):
        root = rng.standard_normal((2, 2))
        c, V = rng.standard_normal(2), root @ root.T + 0.1 * np.eye(2)
        found = best_direction(c, V)
        angles = np.linspace(-np.pi / 2, np.pi / 2, 2001)
        others = [snr(c, V, np.array([np.cos(a), np.sin(a)])) for a in angles]
        assert found.snr >= max(others) - 1e-9
        assert found.q[0] >= 0


def test_guard_leaves_the_source_alone():
    # V⁻¹c points away from the target column: the supremum is the source alone (theory.md §1).
    c, V = np.array([0.1, 1.0]), np.array([[1.0, 0.9], [0.9, 1.0]])
    found = best_direction(c, V)
    assert found.q[0] == 0
    assert found.snr == pytest.approx(1.0)
    assert scales(found.q) == pytest.approx([np.inf])


def test_columns_of_very_different_size_and_singular_forms():
    V = np.diag([1e-12, 1e12])
    assert best_direction(np.array([1e-6, 1e6]), V).snr == pytest.approx(np.sqrt(2.0))
    twins = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 1.0], [0.0, 1.0, 1.0]])  # a source given twice
    assert best_direction(np.ones(3), twins).snr == pytest.approx(np.sqrt(2.0))


def test_degenerate_cases():
    assert best_direction(np.array([-1.0]), np.eye(1)).q == pytest.approx([1.0])
    assert snr(np.zeros(1), np.zeros((1, 1)), np.ones(1)) == 0.0
    assert snr(np.ones(1), np.zeros((1, 1)), np.ones(1)) == np.inf
    assert scales(np.array([2.0, 1.0, -4.0])) == pytest.approx([0.5, -2.0])
