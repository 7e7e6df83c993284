"""What a cold start pays for: the modules each handler imports with its services built, in a bare interpreter over the
staged layers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.cold import ENVIRONMENT

ROOT = Path(__file__).resolve().parents[2]

_PROGRAM = """
import json, sys
before = set(sys.modules)
__import__("importlib").import_module(sys.argv[1])
print(json.dumps(sorted(set(sys.modules) - before)))
"""

#: The same as the bench takes, so that neither lacks a variable that a function needs.
ENV = {**ENVIRONMENT, "AWS_LAMBDA_FUNCTION_NAME": "under-test"}  # services are built while the module loads

#: What connects to upstreams.
_UPSTREAMS = "tidegate.adapters.upstreams.by_protocol"

#: Handler -> how many modules of ours it may import. A function that needs more is worth a look: either it uses what
#: it should not, or the number is raised here with it.
GATEWAY = {
    "functions.gateway_connect.connect": 54,
    "functions.gateway_connect.disconnect": 53,
    "functions.gateway_connect.messages": 97,
    "functions.mqtt_bridge.bridge": 78,
    "functions.mqtt_bridge.catch_up": 71,
    "functions.mqtt_bridge.crowd": 68,
    "functions.revalidate.worker": 96,
    "functions.revalidate.dispatch": 47,
    "functions.revalidate.schedule": 56,
    "functions.revalidate.profiles": 63,
}


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
    """The modules that importing a handler, and building its services, imports."""
    program = f"import sys; sys.path[:0] = {[str(path) for path in paths]!r}\n{_PROGRAM}"
    command = [sys.executable, "-I", "-S", "-c", program, module]
    done = subprocess.run(command, capture_output=True, text=True, cwd="/", env=ENV)
    assert done.returncode == 0, done.stderr[-2000:]
    return set(json.loads(done.stdout.splitlines()[-1]))


def packages(modules: set[str]) -> set[str]:
    return {name.split(".")[0] for name in modules}


@pytest.mark.parametrize("module", GATEWAY)
def test_the_gateway_imports_little(module: str, staged: tuple[Path, Path, Path]) -> None:
    modules = imported(module, ROOT, ROOT / "layers/tidegate/python", staged[0])
    heavy = {"fastapi", "pydantic", "starlette", "mangum", "boto3", "botocore", "cryptography", "argon2", "asyncio"}
    assert not packages(modules) & heavy
    ours = sorted(name for name in modules if name.split(".")[0] in ("tidegate", "functions"))
    assert len(ours) <= GATEWAY[module], f"{len(ours)} modules: {ours}"


def test_a_disconnect_needs_neither_tokens_nor_delivery(staged: tuple[Path, Path, Path]) -> None:
    modules = imported("functions.gateway_connect.disconnect", ROOT, ROOT / "layers/tidegate/python", staged[0])
    assert not packages(modules) & {"jwt"}
    assert not {name for name in modules if name.startswith(("tidegate.usecases.delivery", "tidegate.adapters.remote"))}


def test_the_relay_imports_what_its_layers_hold(staged: tuple[Path, Path, Path]) -> None:
    names = packages(imported("functions.relay.worker", ROOT, ROOT / "layers/tidegate/python", staged[0], staged[2]))
    assert not names & {"fastapi", "pydantic", "boto3", "mangum", "argon2"}
    later = {"tidegate.adapters.aws.credential_cipher": "cryptography", _UPSTREAMS: "aiohttp"}
    for module, package in later.items():  # imported when the first worker is made
        assert package in packages(imported(module, ROOT / "layers/tidegate/python", staged[0], staged[2]))


def test_the_api_imports_what_its_layers_hold(staged: tuple[Path, Path, Path]) -> None:
    names = packages(imported("functions.api.main", ROOT, ROOT / "layers/tidegate/python", *staged[:2]))
    assert {"fastapi", "mangum", "argon2", "cryptography"} <= names and not names & {"boto3", "aws_cdk"}
    assert "aiohttp" not in names, "only a preview needs it"
    assert "aiohttp" in packages(imported(_UPSTREAMS, ROOT / "layers/tidegate/python", *staged))
