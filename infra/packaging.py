"""Assets: the functions, the shared layer, and the dependency layers. All are built without a container."""

from __future__ import annotations

import compileall
import functools
import hashlib
import os
import platform
import py_compile
import shutil
import subprocess
import sys
from pathlib import Path

import aws_cdk as cdk
import jsii
from aws_cdk import aws_lambda as lambda_
from constructs import Construct

from infra.stage import Stage

ROOT = Path(__file__).resolve().parent.parent
PYTHON_VERSION = "3.13"
RUNTIME = lambda_.Runtime.PYTHON_3_13


def architecture(stage: Stage) -> lambda_.Architecture:
    """The functions' architecture. For `host` it is the machine's, because an emulator on the machine runs them."""
    host_is_arm = platform.machine() in ("aarch64", "arm64")
    if stage.architecture == "host" and not host_is_arm:
        return lambda_.Architecture.X86_64
    return lambda_.Architecture.ARM_64


def function_code(name: str) -> lambda_.Code:
    """The code of `functions/<name>` and nothing else. It is importable as `functions.<name>`."""
    return lambda_.Code.from_asset(
        str(ROOT),
        ignore_mode=cdk.IgnoreMode.GIT,
        exclude=[
            "/*",
            "!/functions",
            "/functions/*",
            "!/functions/__init__.py",
            f"!/functions/{name}",
            "__pycache__",
        ],
    )


def code_hash(name: str, stage: Stage, *folders: str) -> str:
    """12 hex characters for all the code that a function runs: its own, the shared one, and its dependencies.

    Args:
        folders: of its dependency layers.
    """
    own = [ROOT / "functions/__init__.py", *(ROOT / "functions" / name).rglob("*.py")]
    shared = (ROOT / "layers/tidegate/python").rglob("*.py")
    pinned = [ROOT / "layers" / folder / "requirements.txt" for folder in folders]
    return _hash_of(stage, *sorted([*own, *shared]), *pinned)[:12]


def shared_layer(scope: Construct, stage: Stage) -> lambda_.LayerVersion:
    """The package `tidegate`, with bytecode."""
    source = ROOT / "layers/tidegate/python"
    return lambda_.LayerVersion(
        scope,
        "SharedLayer",
        code=lambda_.Code.from_asset(
            str(source),
            asset_hash=_hash_of(stage, *sorted(source.rglob("*.py"))),
            asset_hash_type=cdk.AssetHashType.CUSTOM,
            exclude=["__pycache__"],
            bundling=cdk.BundlingOptions(image=RUNTIME.bundling_image, local=_Copied(source, stage)),
        ),
        compatible_runtimes=[RUNTIME],
        description="tidegate: shared code",
    )


def dependency_layer(scope: Construct, construct_id: str, folder: str, stage: Stage) -> lambda_.LayerVersion:
    """The packages that `layers/<folder>/requirements.txt` pins, installed for the functions' platform."""
    requirements = ROOT / "layers" / folder / "requirements.txt"
    return lambda_.LayerVersion(
        scope,
        construct_id,
        code=lambda_.Code.from_asset(
            str(requirements.parent),
            asset_hash=_hash_of(stage, requirements),
            asset_hash_type=cdk.AssetHashType.CUSTOM,
            bundling=cdk.BundlingOptions(image=RUNTIME.bundling_image, local=_Installed(requirements, stage)),
        ),
        compatible_runtimes=[RUNTIME],
        description=f"tidegate: {folder}",
    )


@jsii.implements(cdk.ILocalBundling)
class _Copied:
    def __init__(self, source: Path, stage: Stage) -> None:
        self._source = source
        self._stage = stage

    def try_bundle(self, output_dir: str, *_args: object, **_options: object) -> bool:
        target = Path(output_dir) / "python"
        shutil.copytree(self._source, target, ignore=shutil.ignore_patterns("__pycache__"))
        _compile(target, self._stage)
        return True


@jsii.implements(cdk.ILocalBundling)
class _Installed:
    def __init__(self, requirements: Path, stage: Stage) -> None:
        self._requirements = requirements
        self._stage = stage

    def try_bundle(self, output_dir: str, *_args: object, **_options: object) -> bool:
        target = Path(output_dir) / "python"
        command = [_uv(), "pip", "install", "--quiet", "--require-hashes", "--no-deps", "--target", str(target)]
        if self._stage.architecture == "arm64":
            command += ["--python-platform", "aarch64-manylinux_2_28", "--python-version", PYTHON_VERSION]
            command += ["--only-binary", ":all:"]
        else:
            command += ["--python", sys.executable]
        subprocess.run([*command, "-r", str(self._requirements)], check=True)
        for stray in (target / ".lock", target / "bin"):
            shutil.rmtree(stray) if stray.is_dir() else stray.unlink(missing_ok=True)
        _compile(target, self._stage)
        return True


def _compile(target: Path, stage: Stage) -> None:
    """Add bytecode. Without it a cold start costs three to four times as much."""
    if stage.architecture == "host":
        mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
        compileall.compile_dir(str(target), quiet=1, invalidation_mode=mode)
        return
    compiler = _compiler()
    if compiler is None:
        sys.stderr.write(
            f"packaging: no Python {PYTHON_VERSION} here, so layers carry no bytecode and cold starts take longer\n"
        )
        return
    command = [compiler, "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash", str(target)]
    subprocess.run(command, check=True)


@functools.cache
def _compiler() -> str | None:
    """The path of a Python of the functions' version on this machine; None when there is none."""
    if not shutil.which("uv"):
        return None
    found = subprocess.run([_uv(), "python", "find", PYTHON_VERSION], capture_output=True, text=True)
    return found.stdout.strip() if found.returncode == 0 else None


def _uv() -> str:
    found = shutil.which("uv", path=os.environ.get("PATH", ""))
    if not found:
        raise RuntimeError("uv is not on PATH: run `make setup`, and call the CDK through make")
    return found


def _hash_of(stage: Stage, *files: Path) -> str:
    """Hash of all that decides the content: the files, the platform they are installed for, and this file's code.

    For a cloud stage the machine that deploys must not matter, or each machine would publish layers of its own. But it
    matters whether the machine can make bytecode, because layers with and without bytecode differ.
    """
    if stage.architecture == "arm64":
        built_for = f"arm64 {PYTHON_VERSION} bytecode={_compiler() is not None}"
    else:
        built_for = f"{platform.machine()} {sys.version_info[:2]}"
    digest = hashlib.sha256(built_for.encode())
    for file in (Path(__file__).resolve(), *files):
        digest.update(str(file.relative_to(ROOT)).encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()
