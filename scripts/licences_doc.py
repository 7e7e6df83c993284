"""Write docs/reference/licences.md: every package of the lock files, with its licence and where it is used.

A test keeps both equal, and holds every licence to what is allowed where the package is used.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from scripts.inventory import Package, packages
from scripts.markdown import table

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "docs/reference/licences.md"
#: Of what is deployed: they ask for a notice at most, and nothing of the code beside them.
DEPLOYED = frozenset({"0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "MIT", "MIT-0", "PSF-2.0"})
#: Of tools, which are not passed on: also those that ask for changes of themselves to be open.
TOOLS = DEPLOYED | {"CNRI-Python", "MPL-2.0"}

_HEAD = """# Licences

Every package that a lock file names, with its version. Tidegate itself has the [Apache License 2.0](../../LICENSE).
This page is generated. After a change of a lock file, run:

    PYTHONPATH=layers/tidegate/python:. .venv/bin/python scripts/licences_doc.py

A licence is an SPDX expression: as a package of npm has it in the lock file, and one of Python in its metadata. A
package that is not installed here keeps the licence that it has on this page. `make sbom` writes what is deployed for
programs, in CycloneDX. `make audit` asks for advisories. See [Dependencies](../operations/dependencies.md).

"""


def known(page: str) -> dict[tuple[str, str], str]:
    """(name, version) -> licence, as a page has them."""
    rows = re.findall(r"^\| `([^`]+)` \| (\S+) \| ([^|]+) \|", page, re.M)
    return {(name, version): licence for name, version, licence in rows}


def problem(licence: str, allowed: frozenset[str]) -> str | None:
    """What is wrong with an SPDX expression. With `OR` one of its licences has to be allowed, with `AND` each."""
    for choice in licence.split(" OR "):
        if set(choice.strip("()").split(" AND ")) <= allowed:
            return None
    return f"{licence or 'unknown'}; allowed: {', '.join(sorted(allowed))}"


def with_licences(page: str, found: Sequence[Package]) -> list[tuple[Package, str]]:
    """Each package with its licence. What is not known here is taken from the page."""
    old = known(page)
    return [(each, each.licence or old.get((each.name, each.version), "unknown")) for each in found]


def render(page: str) -> str:
    """The whole page. `page`: the present one."""
    everything = with_licences(page, packages())
    deployed = [
        [f"`{each.name}`", each.version, licence, ", ".join(each.used_in)]
        for each, licence in everything
        if each.deployed
    ]
    tools = [
        [f"`{each.name}`", each.version, licence, each.ecosystem] for each, licence in everything if not each.deployed
    ]
    text = _HEAD + "## What is deployed\n\nLayers of the functions, and what is bundled into the pages (`console`).\n\n"
    text += f"Allowed: {', '.join(f'`{each}`' for each in sorted(DEPLOYED))}.\n\n"
    text += table(["package", "version", "licence", "used in"], deployed)
    text += "\n## Development\n\nTests, checks, the CDK app, the local stack, and the build of the pages.\n\n"
    text += f"Allowed beside those: {', '.join(f'`{each}`' for each in sorted(TOOLS - DEPLOYED))}.\n\n"
    return text + table(["package", "version", "licence", "from"], tools)


if __name__ == "__main__":
    TARGET.write_text(render(TARGET.read_text() if TARGET.exists() else ""))
