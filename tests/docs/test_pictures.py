"""Pictures come light and dark, and say the same."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).resolve().parents[2]
IMAGES = ROOT / "docs/images"
LIGHT = sorted(IMAGES.glob("*-light.svg"))


@pytest.mark.parametrize("light", LIGHT, ids=lambda path: path.stem)
def test_a_picture_differs_from_its_dark_one_in_colours_only(light: Path) -> None:
    dark = light.with_name(light.name.replace("-light", "-dark"))

    def shape(path: Path) -> str:
        text = path.read_text()
        assert ElementTree.fromstring(text).tag.endswith("svg")  # noqa: S314  (our own file)
        return re.sub(r"#[0-9a-f]{6}", "#colour", text)

    assert shape(light) == shape(dark)
    assert light.read_text() != dark.read_text()


def test_there_are_pictures_and_pages_show_both() -> None:
    assert LIGHT
    for page in (ROOT / "README.md", ROOT / "docs/concepts/overview.md"):
        text = page.read_text()
        assert "prefers-color-scheme: dark" in text
        assert re.search(r'srcset="[^"]*data-flow-dark\.svg"', text) and re.search(
            r'src="[^"]*data-flow-light\.svg"', text
        )
