"""What `make up` does on a stack that runs: decided from what runs and what would be started."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from local_stack import versions
from local_stack.config import Config, StackError
from local_stack.processes import alone
from local_stack.versions import Plan, Record, plan, wanted

PARTS = ("deployment", "edge", "plant", "emulator", "fake_upstreams")
WAS = dict.fromkeys(PARTS, "1")
ALL = {"edge", "plant", "emulator", "fake_upstreams"}
NOTHING = Plan(deploy=False, restart=(), kept=(), ended=())


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout of a few files, in which the edge imports a module that imports one of the package."""
    files = {
        "cdk.json": "{}",
        "functions/api/main.py": "",
        "infra/pages.py": "from tidegate.domain import topics\n",
        "layers/tidegate/python/tidegate/domain/topics.py": "",
        "layers/tidegate/python/tidegate/domain/other.py": "",
        "local_stack/edge.py": "def serve():\n    from infra import pages\n",
        "local_stack/plant.py": "import json\n",
        "local_stack/emulator_process.py": "",
        "fixtures/fake_upstreams/__main__.py": "",
        "requirements/emulator.txt": "",
        "docs/a.md": "",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(versions, "ROOT", tmp_path)
    monkeypatch.setattr(versions, "_SHARED", tmp_path / "layers/tidegate/python")
    return tmp_path


@pytest.mark.parametrize(
    ("was", "alive", "expected"),
    [
        (WAS, ALL, NOTHING),
        (WAS | {"deployment": "0"}, ALL, replace(NOTHING, deploy=True)),
        (WAS | {"edge": "0"}, ALL, replace(NOTHING, restart=("edge",))),
        (WAS, ALL - {"plant"}, replace(NOTHING, restart=("plant",))),
        (WAS | {"emulator": "0"}, ALL, replace(NOTHING, kept=("emulator",))),
        (WAS, ALL - {"fake_upstreams"}, replace(NOTHING, ended=("fake_upstreams",))),
        # Interrupted while it deployed, or started before this was noted: what has data is not called changed.
        ({part: "1" for part in PARTS if part != "deployment"}, ALL, replace(NOTHING, deploy=True)),
        ({}, ALL, replace(NOTHING, deploy=True, restart=("edge", "plant"))),
    ],
)
def test_only_what_differs_is_changed(was: dict[str, str], alive: set[str], expected: Plan) -> None:
    found = plan(was, WAS, alive)
    assert found == expected
    assert found.nothing is (not expected.deploy and not expected.restart)


def test_a_stack_without_the_device_does_not_get_it(checkout: Path) -> None:
    config = Config()
    assert wanted(config, {}, moving=True).keys() == set(PARTS)
    without = wanted(config, {}, moving=False)
    assert "plant" not in without and plan(without, without, ALL - {"plant"}) == NOTHING
    assert "emulator" not in wanted(replace(config, endpoint="http://e"), {}, moving=False), "it is another's"


def test_a_setting_deploys_and_the_framing_pages_start_the_edge_again(checkout: Path) -> None:
    before = wanted(Config(), {}, moving=True)
    after = wanted(Config(), {"CONSOLE_FRAME_ANCESTORS": "https://a.example"}, moving=True)
    assert {part for part in PARTS if before[part] != after[part]} == {"deployment", "edge"}
    after = wanted(Config(), {"SECRET_CACHE_SECONDS": "20"}, moving=True)
    assert {part for part in PARTS if before[part] != after[part]} == {"deployment"}


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("functions/api/main.py", {"deployment"}),
        ("functions/api/added.py", {"deployment"}),
        ("layers/tidegate/python/tidegate/domain/topics.py", {"deployment", "edge"}),
        ("layers/tidegate/python/tidegate/domain/other.py", {"deployment"}),
        ("layers/tidegate/python/tidegate/__pycache__/x.pyc", set()),
        ("local_stack/plant.py", {"plant"}),
        ("requirements/emulator.txt", {"emulator"}),
        ("docs/a.md", set()),
    ],
)
def test_a_change_of_a_file_changes_what_is_made_of_it(checkout: Path, name: str, parts: set[str]) -> None:
    before = wanted(Config(), {}, moving=True)
    (checkout / name).parent.mkdir(exist_ok=True)
    (checkout / name).write_text("X = 1\n")
    after = wanted(Config(), {}, moving=True)
    assert {part for part in PARTS if before[part] != after[part]} == parts


def test_a_file_that_cannot_be_read_is_named(checkout: Path) -> None:
    (checkout / "infra/pages.py").write_text("def f(:\n")
    with pytest.raises(StackError, match=r"infra/pages.py:1: "):
        wanted(Config(), {}, moving=True)


# --- the note of what was started -----------------------------------------------------------------------------


def test_what_is_about_to_be_changed_is_not_in_the_note(tmp_path: Path) -> None:
    record = Record(Config(state=tmp_path))
    assert record.versions() == {}
    record.note(WAS)
    record.forget("deployment")
    assert plan(record.versions(), WAS, ALL).deploy, "killed here, the next one deploys, though nothing differs"
    record.note({"deployment": "1"})
    assert plan(record.versions(), WAS, ALL) == NOTHING


def test_other_ports_are_refused(tmp_path: Path) -> None:
    config = Config(state=tmp_path)
    Record(config).note(WAS)
    Record(config).refuse_other_ports()
    with pytest.raises(StackError, match="runs with TIDEGATE_MQTT_PORT=8883, and it is 8000 now"):
        Record(replace(config, mqtt_port=8000)).refuse_other_ports()


def test_the_second_at_once_is_refused(tmp_path: Path) -> None:
    """Two drills would see each other's damage, and an update would take away what a drill puts right."""
    state = tmp_path / "state"
    with alone(state), pytest.raises(StackError, match="`make down` or `make drill` is at work"), alone(state):
        raise AssertionError
    with alone(state):
        assert not list(state.iterdir()), "the lock leaves no file"
