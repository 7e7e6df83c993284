"""What a stack was started with, and what it would be started with now: by a hash of the code and of the settings."""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from local_stack.config import PORT_VARIABLES, ROOT, Config, StackError
from local_stack.processes import replace_text

#: Folders and files that the CDK app and what it deploys are made from.
_DEPLOYED = ("cdk.json", "functions", "infra", "layers")
_SHARED = ROOT / "layers/tidegate/python"
#: Processes that may be started again while the stack runs. They keep nothing.
RESTARTED = {"edge": "local_stack.edge", "plant": "local_stack.plant"}
#: What has data, or an identity that the data refers to: it stays as it is for as long as the stack runs.
KEPT = {"emulator": "local_stack.emulator_process", "fake_upstreams": "fixtures.fake_upstreams.__main__"}
DEPLOYMENT = "deployment"


@dataclass(frozen=True, slots=True)
class Plan:
    """What an update does.

    Attributes:
        deploy: whether the CDK app is deployed again.
        restart: processes that are started again, or that have ended.
        kept: parts that have changed and are left as they are, because data would be lost with them.
        ended: parts with data that have ended. They come back with a new stack only.
    """

    deploy: bool
    restart: tuple[str, ...]
    kept: tuple[str, ...]
    ended: tuple[str, ...]

    @property
    def nothing(self) -> bool:
        return not self.deploy and not self.restart


def plan(was: Mapping[str, str], wanted: Mapping[str, str], alive: Collection[str]) -> Plan:
    """Compare what runs with what would be started.

    Args:
        was: part -> hash, of what was started. What an interrupted update was about to change is not in it.
        wanted: part -> hash, of what would be started.
        alive: names of the processes that run.
    """
    changed = {part for part, version in wanted.items() if was.get(part) != version}
    return Plan(
        deploy=DEPLOYMENT in changed,
        restart=tuple(each for each in RESTARTED if each in wanted and (each in changed or each not in alive)),
        kept=tuple(each for each in KEPT if each in changed and each in was and each in alive),
        ended=tuple(each for each in KEPT if each in wanted and each not in alive),
    )


def wanted(config: Config, settings: Mapping[str, str], *, moving: bool) -> dict[str, str]:
    """Part -> hash of what `up` would start. Raises `StackError` when a program cannot be read.

    Args:
        settings: that override those of the stage.
        moving: whether the device of the demo boards is one of the parts.
    """
    emulator = [*_sources(KEPT["emulator"]), ROOT / "requirements/emulator.txt"]
    ancestors = settings.get("CONSOLE_FRAME_ANCESTORS", "")
    found = {
        DEPLOYMENT: _hash(_deployed(), json.dumps(dict(settings), sort_keys=True)),
        "edge": _hash(_sources(RESTARTED["edge"]), ancestors),
        "fake_upstreams": _hash(_sources(KEPT["fake_upstreams"])),
    }
    if config.endpoint is None:
        found["emulator"] = _hash(emulator)
    if moving:
        found["plant"] = _hash(_sources(RESTARTED["plant"]))
    return found


class Record:
    """What the stack was started with, on disk."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._file = config.started_file

    def versions(self) -> dict[str, str]:
        """Part -> hash; empty for a stack that was started before this was kept."""
        return dict(self._read().get("versions", {}))

    def refuse_other_ports(self) -> None:
        """Raise `StackError` when the stack runs on other ports than the configuration says."""
        for variable, port in self._read().get("ports", {}).items():
            given = getattr(self._config, PORT_VARIABLES[variable])
            if given != port:
                raise StackError(
                    f"The stack runs with {variable}={port}, and it is {given} now. Ports stay as they are while it "
                    f"runs: set {variable}={port}, or run `make down` first."
                )

    def forget(self, part: str) -> None:
        """Before a part is changed. Whoever is interrupted then has changed it or not, and the next one does."""
        self._write({name: version for name, version in self.versions().items() if name != part})

    def note(self, versions: Mapping[str, str]) -> None:
        """After parts were started."""
        self._write(self.versions() | dict(versions))

    def _read(self) -> dict[str, dict[str, str]]:
        return dict(json.loads(self._file.read_text())) if self._file.exists() else {}

    def _write(self, versions: Mapping[str, str]) -> None:
        ports = {variable: getattr(self._config, name) for variable, name in PORT_VARIABLES.items()}
        replace_text(self._file, json.dumps({"ports": ports, "versions": versions}, indent=2))


def _deployed() -> Iterator[Path]:
    for name in _DEPLOYED:
        path = ROOT / name
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file() and "__pycache__" not in file.parts:
                yield file


def _sources(module: str) -> list[Path]:
    """The files of the checkout that a program is made of: its module, what that imports, and so on."""
    found: set[Path] = set()
    todo = [module]
    while todo:
        for path in _files(todo.pop()):
            if path not in found:
                found.add(path)
                todo += _imports(path)
    return sorted(found)


def _files(module: str) -> Iterator[Path]:
    """The files of a module and of the packages that it is in; none when it is not the checkout's."""
    names = module.split(".")
    for folder in (ROOT, _SHARED):
        for length in range(1, len(names) + 1):
            base = folder.joinpath(*names[:length])
            yield from (file for file in (base.with_suffix(".py"), base / "__init__.py") if file.is_file())


def _imports(path: Path) -> Iterator[str]:
    try:
        tree = ast.parse(path.read_text())
    except SyntaxError as error:
        raise StackError(f"{path}:{error.lineno}: {error.msg}.") from error
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{each.name}" for each in node.names)


def _hash(files: Iterable[Path], *further: str) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(str(file.relative_to(ROOT)).encode())
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    for text in further:
        digest.update(text.encode())
    return digest.hexdigest()
