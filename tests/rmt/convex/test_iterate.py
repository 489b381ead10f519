"""The iteration for many small fixed points."""

from __future__ import annotations

import numpy as np
import pytest

from rmt.convex.iterate import iterate


def relative(move, state):
    return np.abs(move).max(axis=1)


@pytest.mark.parametrize("spin", [0.0, 0.9, 3.0, 30.0])
def test_contractions_and_rotations(spin):
    """x → Rx + b: damping alone cannot hold a rotation of speed 30, Newton's method can."""
    rng = np.random.default_rng(0)
    turn = spin * np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    targets = rng.standard_normal((50, 3))
    state = np.zeros((50, 3))

    def residual(at):
        return (targets[at] - state[at]) @ (np.eye(3) - turn).T

    solved, taken = iterate(residual, relative, state, np.arange(50))
    assert solved.size == 50
    np.testing.assert_allclose(state, targets, atol=1e-10)
    assert (taken > 0).all()


def test_what_has_no_fixed_point_is_not_called_solved():
    state = np.zeros((3, 1))
    drift = np.array([0.0, 1.0, 0.0])

    def residual(at):
        return np.where(drift[at] > 0, 1.0 + np.exp(-state[at, 0]), -state[at, 0])[:, None]

    solved, _ = iterate(residual, relative, state, np.arange(3))
    assert solved.tolist() == [0, 2]


def test_only_the_points_asked_for_move():
    state = np.ones((4, 2))
    solved, _ = iterate(lambda at: -state[at], relative, state, np.array([1, 3]))
    assert solved.tolist() == [1, 3]
    np.testing.assert_array_equal(state[[0, 2]], 1.0)


def test_another_start_may_be_tried():
    """log-shaped: from 0 Newton's method runs away, from near the root it does not."""
    state = np.zeros((1, 1))

    def residual(at):
        return -np.arctan(20.0 * (state[at] - 40.0)) - 1e-3 * np.sin(state[at])

    solved, _ = iterate(residual, relative, state, np.arange(1), starts=[(39.9,)])
    assert solved.size == 1
