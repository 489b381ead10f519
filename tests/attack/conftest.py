"""Attacks: a quick part in the suite, the whole with ``make attack`` (ATTACK=whole, at most 20 minutes)."""

from __future__ import annotations

import os

import pytest


@pytest.fixture
def rounds() -> int:
    """How often a random attack is repeated."""
    return 60 if os.environ.get("ATTACK") == "whole" else 4
