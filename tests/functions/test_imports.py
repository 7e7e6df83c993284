"""What a cold start pays for: the modules each handler imports, in a bare interpreter over the staged layers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

_PROGRAM = """
import json, sys
before = set(sys.modules)
__import__("importlib").import_module(sys.argv[1])
print(json.dumps(sorted({name.split(".")[0] for name in set(sys.modules) - before})))
"""

GATEWAY = [
    "functions.gateway_connect.connect",
    "functions.gateway_connect.disconnect",
    "functions.gateway_connect.messages",
    "functions.mqtt_bridge.bridge",
    "functions.mqtt_bridge.catch_up",
    "functions.revalidate.worker",
    "functions.revalidate.dispatch",
    "functions.revalidate.profiles",
]


@pytest.fixture(scope="session")
def staged(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """The dependency layers as they are built for this machine: (every function's, the API's, the relay's)."""
    made = []
    for folder in ("dependencies", "api_dependencies", "relay_dependencies"):
        target = tmp_path_factory.mktemp(folder)
        requirements = ROOT / "layers" / folder / "requirements.txt"
        command = ["uv", "pip", "install", "--quiet", "--require-hashes", "--no-deps", "--target", str(target)]
        subprocess.run([*command, "--python", sys.executable, "-r", str(requirements)], check=True)
        made.append(target)
    return made[0], made[1], made[2]


def imported(module: str, *paths: Path) -> set[str]:
    program = f"import sys; sys.path[:0] = {[str(path) for path in paths]!r}\n{_PROGRAM}"
    command = [sys.executable, "-I", "-S", "-c", program, module]
    done = subprocess.run(command, capture_output=True, text=True, cwd="/")
    assert done.returncode == 0, done.stderr[-2000:]
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize("module", GATEWAY)
def test_the_gateway_imports_little(module: str, staged: tuple[Path, Path, Path]) -> None:
    names = imported(module, ROOT, ROOT / "layers/tidegate/python", staged[0])
    assert "tidegate" in names
    heavy = {"fastapi", "pydantic", "starlette", "mangum", "boto3", "botocore", "cryptography", "argon2", "asyncio"}
    assert not names & heavy


def test_the_relay_imports_what_its_layers_hold(staged: tuple[Path, Path, Path]) -> None:
    names = imported("functions.relay.worker", ROOT, ROOT / "layers/tidegate/python", staged[0], staged[2])
    assert {"aiohttp", "cryptography"} <= names and not names & {"fastapi", "pydantic", "boto3", "mangum", "argon2"}


def test_the_api_imports_what_its_layers_hold(staged: tuple[Path, Path, Path]) -> None:
    names = imported("functions.api.main", ROOT, ROOT / "layers/tidegate/python", *staged[:2])
    assert {"fastapi", "mangum", "argon2", "cryptography"} <= names and not names & {"boto3", "aws_cdk"}
