"""Shared fixtures, and the two sizes of the suite: `make test`, and `make test-all` (``pytest --whole``)."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

try:
    from hypothesis import HealthCheck, settings
except ImportError:  # tests of an installation without it
    settings = None  # type: ignore[assignment, misc]

os.environ.setdefault("HF_HUB_OFFLINE", "1")

#: Skips that ``--whole`` allows: how the reason begins, and why it may be. Any other skip fails there.
ALLOWED_SKIPS = {
    "needs timm": "timm needs torchvision, which the tested CPU build of torch does not go with",
    "needs real data": "the data are no part of the repository",
    "needs ADAPT_SHARED": "the data are no part of the repository",
    "needs /dev/full": "a device of Linux",
    "no C++ compiler": "torch.compile builds with the machine's own compiler",
}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--whole", action="store_true", help="also the tests marked whole, properties at full size")


def pytest_configure(config: pytest.Config) -> None:
    if settings is not None:
        calm = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}  # a busy machine is no fault
        settings.register_profile("suite", max_examples=40, **calm)
        settings.register_profile("whole", max_examples=300, **calm)
        settings.load_profile("whole" if config.getoption("--whole") else "suite")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--whole"):
        dear = [item for item in items if item.get_closest_marker("whole")]
        if dear:
            config.hook.pytest_deselected(items=dear)
            items[:] = [item for item in items if not item.get_closest_marker("whole")]


def fail_unless_listed(report: Any, whole: bool) -> None:
    """Turn a skip for a reason that nobody listed into a failure of the whole suite."""
    if not whole or not report.skipped or hasattr(report, "wasxfail"):
        return
    reason = re.sub(
        r"^Skipped: ", "", str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr)
    )
    if not reason.startswith(tuple(ALLOWED_SKIPS)):
        report.outcome = "failed"
        report.longrepr = f"{report.nodeid} was skipped for a reason that tests/conftest.py does not list: {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report = yield
    fail_unless_listed(report, item.config.getoption("--whole"))
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Iterator[None]:
    report = yield
    fail_unless_listed(report, collector.config.getoption("--whole"))
    return report


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with ``data/`` and ``models/``; tests that need it are skipped without it."""
    folder = os.environ.get("ADAPT_SHARED", "")
    if not folder or not Path(folder, "data").is_dir():
        pytest.skip("needs real data: set ADAPT_SHARED to the folder that holds data/ and models/")
    return Path(folder)
