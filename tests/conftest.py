"""For all tests: none reaches a real account, which ones run, who shares a worker, and what is printed at the end."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest

if TYPE_CHECKING:
    from _pytest.terminal import TerminalReporter

    from tests.servers.management import ManagementServer
    from tests.servers.remote_api import RemoteApiServer

REGION = "us-east-1"
#: Where a whole stack is started.
STACK = ("tests/e2e/",)
#: Where the product's own patience with its stores is checked.
PATIENCE = "tests/drill/test_drill.py"
#: Places whose tests stay in one worker: they share what is slow to start (a stack, a synthesised app, installed
#: layers), or measure, which two at once would disturb.
TOGETHER = (*STACK, "tests/infra/", "tests/functions/test_imports.py", "tests/benchmarks/")
#: Tests that take long, or whose place does, in this order. The stack is the first: whoever did anything before it has
#: given way already.
FIRST = (*STACK, PATIENCE, "tests/benchmarks/", "tests/infra/", "tests/model/")


# A test that types `make` types it as a person does, not as a part of the `make test` that runs it: that would print
# which directory it enters, and hand on its options.
for _of_make in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS"):
    os.environ.pop(_of_make, None)

# A deadline of 200 ms per example measures how busy the machine is.
hypothesis.settings.register_profile("no deadline", deadline=None)
hypothesis.settings.load_profile("no deadline")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--full",
        action="store_true",
        help="also the tests marked `full`, and every scene of the model in its full bound",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is for `--full` only; begin with what takes longest, so that no worker is left alone with it."""
    left_out = [item for item in items if not config.getoption("--full") and item.get_closest_marker("full")]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
    kept = [item for item in items if item not in left_out]
    items[:] = sorted(kept, key=_turn)


def _turn(item: pytest.Item) -> int:
    return next((turn for turn, place in enumerate(FIRST) if item.nodeid.startswith(place)), len(FIRST))


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> object:
    """Tests go to whichever worker is free, those of a place in `TOGETHER` all to one."""
    from xdist.scheduler import LoadScopeScheduling

    class ByPlace(LoadScopeScheduling):  # type: ignore[misc]  # it has no types
        def _split_scope(self, nodeid: str) -> str:
            return next((place for place in TOGETHER if nodeid.startswith(place)), nodeid)

    return ByPlace(config, log)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """The end-to-end tests check times of a running stack, so other tests beside them give way. The drill's do not,
    which use little, and are the first of their workers."""
    if hasattr(item.config, "workerinput") and not item.nodeid.startswith((*STACK, PATIENCE)):
        _give_way()


@cache
def _give_way() -> None:
    """Once a process: nothing takes it back. At 10, each has a ninth of what a process of the stack has."""
    os.nice(10)


def pytest_terminal_summary(terminalreporter: TerminalReporter) -> None:
    """How much of the model was explored, and what the drill was answered, also when workers did it."""
    _print_explored(terminalreporter)
    drilled = [
        str(value)
        for outcome in ("passed", "failed")
        for report in terminalreporter.getreports(outcome)
        for name, value in report.user_properties
        if name == "drill"
    ]
    if drilled:
        terminalreporter.section("answers while a table fails, and as usual right afterwards")
        terminalreporter.line("\n".join(drilled))


def _print_explored(terminalreporter: TerminalReporter) -> None:
    explored: list[tuple[int, str]] = [
        value
        for report in terminalreporter.getreports("passed")
        for name, value in report.user_properties
        if name == "explored"
    ]
    if explored:
        bound = "full" if terminalreporter.config.getoption("--full") else "small"
        terminalreporter.section(f"states explored by the model, {bound} bound")
        for states, scene in sorted(explored, reverse=True):
            terminalreporter.line(f"{states:>9,} {scene}")
        terminalreporter.line(f"{sum(states for states, _ in explored):>9,} in all")


@pytest.fixture(autouse=True)
def _no_real_account(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_SESSION_TOKEN": "testing",
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
    }.items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_ENDPOINT_URL", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)


# Imports are inside the fixtures, so that unit tests load neither moto nor boto3.


@pytest.fixture(scope="session")
def moto_url() -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    from tests.deployment import in_one_process

    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with in_one_process():
        yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def deployed(moto_url: str) -> Mapping[str, str]:
    """The environment of a function whose tables and queues are empty."""
    from tests.deployment import deployment

    return deployment(moto_url)


@pytest.fixture
def management() -> Iterator[ManagementServer]:
    from tests.servers.management import ManagementServer

    server = ManagementServer()
    yield server
    server.close()


@pytest.fixture
def remote_api() -> Iterator[RemoteApiServer]:
    from tests.servers.remote_api import RemoteApiServer

    server = RemoteApiServer()
    yield server
    server.close()
