"""Processes the stack started: remembered with their start time, so that only what is ours is ever stopped."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from local_stack.config import Config, StackError

#: How long a process may take to end by itself, seconds; then it is killed.
GRACE_S = 5.0
_STEP_S = 0.05


@dataclass(frozen=True, slots=True)
class Started:
    """A process group we lead. `born` is the system's own words for its start time."""

    name: str
    pid: int
    born: str


class Processes:
    """The list on disk, and starting and stopping."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._file = config.state / "processes.json"

    def alive(self) -> list[Started]:
        """Those of the list that still run."""
        return [started for started in self._list() if _born(started.pid) == started.born]

    def children(self, parent: Started) -> list[tuple[int, str]]:
        """Process id and command line of what one of ours runs now."""
        command = ["ps", "-A", "-ww", "-o", "pid=,ppid=,args="]
        lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
        rows = [line.split(maxsplit=2) for line in lines]
        return [(int(row[0]), row[2]) for row in rows if len(row) == 3 and row[1] == str(parent.pid)]

    def start(
        self, name: str, command: Sequence[str], env: Mapping[str, str | None], cwd: Path
    ) -> subprocess.Popen[bytes]:
        """Start a process in a group of its own, its output in a log. A variable that is None is taken away."""
        self._config.log.mkdir(parents=True, exist_ok=True)
        with self.log_of(name).open("wb") as log:
            process = subprocess.Popen(
                list(command),
                env={key: value for key, value in {**os.environ, **env}.items() if value is not None},
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._save([*self._list(), Started(name, process.pid, _born(process.pid))])
        return process

    def stop(self, name: str) -> None:
        """Stop the one of this name, if it runs. The others go on."""
        for started in self.alive():
            if started.name == name:
                _end(started.pid)
        self._save([started for started in self._list() if started.name != name])

    def stop_all(self) -> list[str]:
        """Stop them, the last one first, workers included. Returns the names of those that ran."""
        stopped = []
        for started in reversed(self.alive()):
            _end(started.pid)
            stopped.append(started.name)
        self._file.unlink(missing_ok=True)
        return stopped

    def log_of(self, name: str) -> Path:
        return self._config.log / f"{name}.log"

    def tail(self, name: str, lines: int = 8) -> str:
        """The end of a log."""
        path = self.log_of(name)
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:]) if path.exists() else ""

    def _list(self) -> list[Started]:
        if not self._file.exists():
            return []
        return [Started(**row) for row in json.loads(self._file.read_text())]

    def _save(self, started: list[Started]) -> None:
        replace_text(self._file, json.dumps([asdict(each) for each in started]))


def replace_text(path: Path, text: str) -> None:
    """Write a file as a whole or not at all, readable by nobody else."""
    fresh = path.with_name(f"{path.name}.new")
    fresh.touch(mode=0o600)
    fresh.write_text(text)
    fresh.replace(path)


@contextmanager
def alone(state: Path) -> Iterator[None]:
    """Nobody else starts, updates or stops this stack meanwhile, or drills on it. `state`: its folder.

    The system lets go of the lock when this process ends.

    Raises:
        StackError: somebody else is at it.
    """
    state.mkdir(parents=True, exist_ok=True)
    held = os.open(state, os.O_RDONLY)
    try:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            told = f"Another `make up`, `make down` or `make drill` is at work on {state}. Try again when it has ended."
            raise StackError(told) from None
        yield
    finally:
        os.close(held)


def wait_until(ready: Callable[[], bool], timeout_s: float, *, process: subprocess.Popen[bytes] | None = None) -> bool:
    """Await a condition; False when time ran out or the process ended."""
    return _eventually(lambda: ready() or (process is not None and process.poll() is not None), timeout_s) and ready()


def refuse_taken_ports(ports: Mapping[str, int]) -> None:
    """Raise `StackError` for the first port somebody listens on. `ports` maps variable to port."""
    for variable, port in ports.items():
        if is_listened_on(port):
            raise StackError(f"Port {port} is in use: stop what listens there, or set {variable} to another port.")


def is_listened_on(port: int) -> bool:
    """Whether somebody listens on a port of loopback."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _eventually(condition: Callable[[], bool], timeout_s: float) -> bool:
    until = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() >= until:
            return False
        time.sleep(_STEP_S)
    return True


def _born(pid: int) -> str:
    """When a process started, empty when there is none; tells a reused process id from ours."""
    done = subprocess.run(["ps", "-o", "lstart=,stat=", "-p", str(pid)], capture_output=True, text=True)
    text = done.stdout.strip()
    return "" if not text or text.split()[-1].startswith("Z") else text.rsplit(maxsplit=1)[0]


def _end(pid: int) -> None:
    """End a process group, and await that."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        _signal(pid, number)
        if _eventually(lambda: not _group_alive(pid), GRACE_S):
            return


def _group_alive(pid: int) -> bool:
    with suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)  # our own child must be reaped to be gone
    try:
        os.killpg(pid, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.killpg(pid, number)
    except ProcessLookupError:
        return
