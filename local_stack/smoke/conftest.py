"""Rows as tests: which stack they drive, how they are ordered, and that each leaves the stack as it found it.

`make smoke` shows them as a table, see `table.py`. `pytest local_stack/smoke` runs them as any tests.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Generator, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from local_stack.config import StackError, read_config
from local_stack.smoke.client import Note, Smoke
from local_stack.smoke.demo_data import read_demo_data
from local_stack.smoke.rows import MODULES
from local_stack.smoke.stack import read_stack


def pytest_addoption(parser: pytest.Parser) -> None:
    text = "the stack.json of the stack to drive; default: that of the stack `make up` started"
    parser.addoption("--stack", type=Path, default=None, help=text)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "row(name, slow=False): the row's name, and whether it takes long")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The table's order, whatever the order of the file names; other tests stay before these."""
    items.sort(key=lambda item: MODULES.index(item.path.stem) if item.path.parent == Path(__file__).parent else -1)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a coroutine to its end; viewers it leaves open are closed within its loop."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = inspect.signature(pyfuncitem.obj).parameters
    arguments = {name: pyfuncitem.funcargs[name] for name in names}
    smoke = pyfuncitem.funcargs.get("smoke")

    async def row() -> None:
        try:
            await pyfuncitem.obj(**arguments)
        finally:
            if isinstance(smoke, Smoke):
                await smoke.close_viewers()

    asyncio.run(row())
    return True


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(call: pytest.CallInfo[None]) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Tell the table what went wrong, in one line."""
    report = yield
    if report.failed and call.excinfo is not None:
        report.user_properties.append(("failure", f"{call.excinfo.typename}: {call.excinfo.value}"))
    return report


@pytest.fixture(scope="session")
def stack_file(pytestconfig: pytest.Config) -> Path:
    given: Path | None = pytestconfig.getoption("--stack")
    return given or read_config().stack_file


@pytest.fixture(scope="session")
def run(stack_file: Path) -> Iterator[Smoke]:
    """The whole run, which signs in once."""
    try:
        smoke = Smoke(read_stack(stack_file))
    except StackError as error:
        pytest.exit(str(error), returncode=1)
    yield smoke
    smoke.close()


@pytest.fixture(scope="session", autouse=True)
def demo_data_before(run: Smoke) -> Mapping[str, Any]:
    """What there was before the first row."""
    return read_demo_data(run)


@pytest.fixture
def smoke(run: Smoke) -> Iterator[Smoke]:
    """The stack as rows drive it. What the row made is deleted after it."""
    yield run
    run.clean_up()


@pytest.fixture
def note(record_property: Callable[[str, object], None]) -> Note:
    """Show a text behind the row's name."""
    return lambda text: record_property("detail", text)
