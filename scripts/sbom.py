"""Write what is deployed as a software bill of materials: `sbom.cdx.json`, CycloneDX 1.6.

It comes from the lock files: layers of the functions, and what is bundled into the pages.
`python scripts/sbom.py [file]`.
"""

from __future__ import annotations

import base64
import sys
import tomllib
from pathlib import Path

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

from scripts.inventory import Package, packages
from scripts.licences_doc import TARGET as LICENCES
from scripts.licences_doc import with_licences

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "sbom.cdx.json"


def component(package: Package, licence: str) -> Component:
    """A package as CycloneDX has it."""
    namespace, _, name = package.name.rpartition("/")
    url = PackageURL(package.ecosystem, namespace or None, name, package.version)
    sha512 = base64.b64decode(package.sha512).hex()
    return Component(
        type=ComponentType.LIBRARY,
        bom_ref=url.to_string(),
        group=namespace or None,
        name=name,
        version=package.version,
        purl=url,
        licenses=[LicenseFactory().make_from_string(licence)],
        hashes=[HashType(alg=HashAlgorithm.SHA_512, content=sha512)] if sha512 else [],
        properties=[Property(name="tidegate:used-in", value=place) for place in package.used_in],
    )


def bill(root: Path = ROOT) -> str:
    """The bill of materials, as JSON."""
    found = with_licences(LICENCES.read_text(), [each for each in packages(root) if each.deployed])
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    bom = Bom()
    bom.metadata.component = own = Component(
        type=ComponentType.APPLICATION,
        bom_ref=project["name"],
        name=project["name"],
        version=project["version"],
        licenses=[LicenseFactory().make_from_string("Apache-2.0")],
    )
    parts = [component(package, licence) for package, licence in found]
    for part in parts:
        bom.components.add(part)
    bom.register_dependency(own, parts)
    return str(JsonV1Dot6(bom).output_as_string(indent=2))


def main() -> int:
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else TARGET
    text = bill()
    target.write_text(text + "\n")
    print(f"{target}: {text.count('tidegate:used-in')} uses of packages")
    return 0


if __name__ == "__main__":
    sys.exit(main())
