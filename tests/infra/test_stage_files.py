"""What a stage file may say. Whatever is wrong with it is told in lines that name it, never by a traceback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import infra.stage
from infra.stage import Stage, StageError, load_stage
from tidegate.domain.stage_rules import EXCEPTIONS, HOPS
from tidegate.settings import STAGE_VARIABLES, SettingsError, documented, load

ROOT = Path(__file__).resolve().parents[2]
#: A production stage with the edge, in which nothing is unusual.
PLAIN: dict[str, Any] = {
    "edge": True,
    "disposable": False,
    "architecture": "arm64",
    "settings": {"REALTIME_SSE_ENABLED": False, "REALTIME_WS_ENABLED": False},
}
OPEN = {"REALTIME_LIMITER_FAILURE_MODE": "fail-open"}


@pytest.fixture
def stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(infra.stage, "STAGES", tmp_path)
    return tmp_path


def stage(folder: Path, settings: dict[str, Any] | None = None, **keys: Any) -> Stage:
    """The stage of PLAIN with other settings and keys."""
    file = PLAIN | {"settings": PLAIN["settings"] | (settings or {})} | keys
    (folder / "qa.json").write_text(json.dumps(file))
    return load_stage("qa")


def problem(folder: Path, settings: dict[str, Any] | None = None, **keys: Any) -> str:
    with pytest.raises(StageError) as caught:
        stage(folder, settings, **keys)
    return str(caught.value)


def test_numbers_and_booleans_are_taken_as_json_has_them(stages: Path) -> None:
    made = stage(stages, {"REALTIME_WS_ENABLED": False, "REALTIME_MAX_CONNECTIONS_PER_DASHBOARD": 5})
    assert made.settings.ws_enabled is False and made.settings.max_connections_per_dashboard == 5
    assert made.variables["REALTIME_WS_ENABLED"] == "false"
    assert made.variables["REALTIME_MAX_CONNECTIONS_PER_DASHBOARD"] == "5"


@pytest.mark.parametrize("value", [None, [], ["a"], {}, {"a": {"b": 1}}, 5.0, 1e999, 0.5])
def test_other_kinds_of_values_are_named_with_what_is_allowed(stages: Path, value: object) -> None:
    if value == 1e999:
        (stages / "qa.json").write_text(json.dumps(PLAIN).replace("false}", 'false, "REALTIME_ENABLED": 1e999}'))
        with pytest.raises(StageError, match=r"^qa\.json: REALTIME_ENABLED.*allowed: a text, a whole number"):
            load_stage("qa")
        return
    told = problem(stages, {"REALTIME_ENABLED": value})
    assert told.startswith("qa.json: REALTIME_ENABLED=") and "allowed: a text, a whole number, true or false" in told
    assert "\n" not in told


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({"REALTIME_MAX_CONNECTIONS_PER_DASHBOARD": "٥"}, ["whole number"]),
        ({"REALTIME_MAX_CONNECTIONS_PER_DASHBOARD": "５"}, ["whole number"]),
        ({"EGRESS_ALLOWED_PORTS": "٨٠"}, ["EGRESS_ALLOWED_PORTS", "1 to 65535"]),
        ({"REALTIME_MAX_CONNECTIONS_PER_DASHBOARD": True}, ["'true'", "whole number"]),
        ({"REALTIME_ENABLED": 5}, ["'5'", "true, false"]),
        ({"GATEWAY_LIMITER_TIMEOUT_MS": "20000"}, ["500 to 9000", "after 15 seconds"]),
        ({"GATEWAY_LIMITER_TIMEOUT_MS": 20000}, ["500 to 9000"]),
        ({"SESSION_TOKEN_ISSUER": "\ud800"}, ["SESSION_TOKEN_ISSUER", "can be printed"]),
        ({"SESSION_TOKEN_ISSUER": "a\0b"}, ["SESSION_TOKEN_ISSUER", "can be printed"]),
        ({"REALTIME_MAX_MESAGE_BYTES": 1}, ["unknown settings", "REALTIME_MAX_MESAGE_BYTES"]),
        ({"TIDEGATE_PROXIES": "none"}, ["TIDEGATE_PROXIES", "not under `settings`"]),
        ({"TIDEGATE_EXCEPTIONS": ""}, ["TIDEGATE_EXCEPTIONS", "not under `settings`"]),
        ({"EGRESS_ALLOWED_HOSTS": "*"}, ["EGRESS_ALLOWED_HOSTS='*'", "not allowed in production"]),
        ({"EGRESS_ALLOWED_HOSTS": "a.example,*"}, ["EGRESS_ALLOWED_HOSTS='*'"]),
        ({"TIDEGATE_ENV": "development"}, ["TIDEGATE_ENV='development'", "production stage", "`disposable`"]),
        ({"TIDEGATE_ENV": " Test "}, ["TIDEGATE_ENV='Test'", "production stage"]),
        (
            {"REALTIME_REVOKE_EVENT_RETENTION_SECONDS": 60},
            [
                "REALTIME_REVOKE_EVENT_RETENTION_SECONDS=60",
                "at least 90",
                "REALTIME_PUBLIC_REVALIDATE_INTERVAL_MS=30000",
            ],
        ),
        (
            {"REALTIME_REVOKE_EVENT_RETENTION_SECONDS": 179, "REALTIME_PUBLIC_REVALIDATE_INTERVAL_MS": 60000},
            ["at least 180"],
        ),
        ({"REALTIME_PUBLIC_REVALIDATE_INTERVAL_MS": 60001}, ["1000 to 60000", "every minute"]),
        (
            {"REALTIME_MAX_CONNECTIONS_PER_DASHBOARD": 1251},
            [
                "REALTIME_MAX_CONNECTIONS_PER_DASHBOARD=1251",
                "DATASOURCE_TOKEN_MINT_RATE_LIMIT_SHARE_TOKEN_PER_MIN=2500",
                "at most 1250 connections, or at least 2502 new viewers in a minute",
            ],
        ),
        (
            {"DATASOURCE_TOKEN_MINT_RATE_LIMIT_SHARE_TOKEN_PER_MIN": 101},
            ["REALTIME_MAX_CONNECTIONS_PER_DASHBOARD=1250", "at most 50 connections, or at least 2500"],
        ),
        (
            {
                "REALTIME_MAX_CONNECTIONS_PER_DASHBOARD": 5001,
                "DATASOURCE_TOKEN_MINT_RATE_LIMIT_SHARE_TOKEN_PER_MIN": 100_000,
                "GATEWAY_API_BASE_URL": "https://api.example",
            },
            ["REALTIME_PUBLIC_SUBSCRIBE_RATE_LIMIT_SHARE_TOKEN_PER_MIN=2500", "at least 10002"],
        ),
        *[
            ({variable: 840_001 if variable.endswith("MS") else 841}, [variable, "after 900 seconds"])
            for variable in (
                "REALTIME_SSE_IDLE_TIMEOUT_MS",
                "REALTIME_WS_IDLE_TIMEOUT_MS",
                "REALTIME_WS_PING_INTERVAL_MS",
                "REALTIME_RECONNECT_MIN_MS",
                "REALTIME_RECONNECT_MAX_MS",
                "REALTIME_MQTT_IDLE_DISCONNECT_MS",
                "REALTIME_MQTT_KEEPALIVE_SECONDS",
            )
        ],
    ],
)
def test_a_wrong_setting_is_named_with_what_is_allowed(
    stages: Path, settings: dict[str, Any], names: list[str]
) -> None:
    told = problem(stages, settings)
    for name in [*names, "qa.json", "allowed" if "unknown settings" not in names else "docs/reference/settings.md"]:
        assert name in told


def test_connections_and_new_viewers_are_raised_together(stages: Path) -> None:
    """At the API that mints, where we mint; and at the subscribe, where a remote API does."""
    connections = {"REALTIME_MAX_CONNECTIONS_PER_DASHBOARD": 2000}
    made = stage(stages, connections | {"DATASOURCE_TOKEN_MINT_RATE_LIMIT_SHARE_TOKEN_PER_MIN": 4000})
    assert made.settings.max_connections_per_dashboard == 2000
    elsewhere = {"GATEWAY_API_BASE_URL": "https://api.example"}
    made = stage(stages, connections | {"REALTIME_PUBLIC_SUBSCRIBE_RATE_LIMIT_SHARE_TOKEN_PER_MIN": 4000} | elsewhere)
    assert made.settings.max_connections_per_dashboard == 2000


def test_hops_follow_from_what_is_in_front(stages: Path) -> None:
    for keys, hops in (({}, 2), ({"edge": False}, 0), ({"edge": False, "architecture": "host"}, 1)):
        made = stage(stages, **keys)
        assert {made.variables[name] for name in HOPS} == {str(hops)}
        assert made.settings.realtime_trust_proxy_hops == made.settings.api_trust_proxy_hops == hops
        assert stage(stages, dict.fromkeys(HOPS, hops), **keys).settings.digest == made.settings.digest
    assert "edge=true with architecture='host'" in problem(stages, architecture="host")


def test_other_hops_need_to_be_confirmed_and_only_these(stages: Path) -> None:
    three = dict.fromkeys(HOPS, 3)
    for keys in ({}, {"hops_confirmed": False}, {"edge": False}):
        told = problem(stages, three, **keys)
        assert all(f"{name}=3" in told for name in HOPS) and '"hops_confirmed": true' in told
    assert stage(stages, three, hops_confirmed=True).settings.api_trust_proxy_hops == 3
    assert "`hops_confirmed` is not needed" in problem(stages, hops_confirmed=True)
    assert "'hops_confirmed' must be true or false" in problem(stages, three, hops_confirmed="true")


UNUSUAL = [(name, "fail-open") for name in EXCEPTIONS[:2]] + [(EXCEPTIONS[2], True)]


@pytest.mark.parametrize(("name", "value"), UNUSUAL)
def test_an_unusual_value_in_production_needs_a_reason(stages: Path, name: str, value: object) -> None:
    told = problem(stages, {name: value})
    assert f"{name}=" in told and f'"exceptions": {{"{name}": "the reason"}}' in told
    confirmed = stage(stages, {name: value}, exceptions={name: "the emulator of the plant, until May"})
    assert confirmed.variables["TIDEGATE_EXCEPTIONS"] == name
    assert f"an exception of {name} is not needed" in problem(stages, exceptions={name: "it may be useful"})
    # Where nothing has to be confirmed, nothing may be.
    lenient = {"TIDEGATE_ENV": "test", name: value}
    assert stage(stages, lenient, disposable=True).settings.exceptions == ()
    assert "is not needed" in problem(stages, lenient, disposable=True, exceptions={name: "a reason"})


@pytest.mark.parametrize("reason", ["", "  ", None, True, 1, ["why"], {"why": "so"}])
def test_a_reason_is_a_text(stages: Path, reason: object) -> None:
    told = problem(stages, OPEN, exceptions={"REALTIME_LIMITER_FAILURE_MODE": reason})
    assert "exception REALTIME_LIMITER_FAILURE_MODE: allowed: a text that gives the reason" in told


def test_only_these_settings_have_exceptions(stages: Path) -> None:
    for name in ("EGRESS_ALLOW_INSECURE_TLS", "realtime_limiter_failure_mode", HOPS[0], ""):
        assert f"unknown exception {name!r}" in problem(stages, exceptions={name: "a reason"})
    assert "'exceptions' must be an object" in problem(stages, exceptions=["REALTIME_LIMITER_FAILURE_MODE"])
    assert {*EXCEPTIONS, *HOPS, *STAGE_VARIABLES} <= {setting.variable for setting in documented()}


def test_functions_refuse_at_their_start_what_the_synth_refuses(stages: Path) -> None:
    """A variable that was changed by hand, after the deployment."""
    confirmed = dict(stage(stages, OPEN, exceptions={"REALTIME_LIMITER_FAILURE_MODE": "a test"}).variables)
    load(confirmed)
    plain = dict(stage(stages).variables)
    load(plain)
    for changed, named in (
        (plain | OPEN, "REALTIME_LIMITER_FAILURE_MODE=fail-open"),
        (plain | {"EGRESS_ALLOW_PRIVATE_DESTINATIONS": "true"}, "EGRESS_ALLOW_PRIVATE_DESTINATIONS=true"),
        (plain | {"TIDEGATE_ENV": "development"}, "TIDEGATE_ENV='development'"),
        (plain | dict.fromkeys(HOPS, "0"), "REALTIME_TRUST_PROXY_HOPS=0"),
        (confirmed | {"REALTIME_LIMITER_FAILURE_MODE": "fail-closed"}, "is not needed"),
        (plain | {"TIDEGATE_EXCEPTIONS": "EVERYTHING"}, "TIDEGATE_EXCEPTIONS='EVERYTHING'"),
    ):
        with pytest.raises(SettingsError, match=named):
            load(changed)


#: What a file may hold that is no stage -> what is told.
BROKEN = {
    b"": "is not JSON",
    b"{": "is not JSON",
    b"[]": "must be a JSON object",
    b"null": "must be a JSON object",
    b'"edge"': "must be a JSON object",
    b"{}": "'edge' must be true or false",
    b'{"edge": 1}': "'edge' must be true or false",
    b"\xff\xfe{\0}\0": "is not UTF-8",
    b'{"edge": "\xe9"}': "is not UTF-8",
    b'{"edge": true, "edge": false}': "'edge' is there twice",
    b'{"settings": {"DB_BACKEND": "dynamodb", "DB_BACKEND": "dynamodb"}}': "'DB_BACKEND' is there twice",
    b'{"edge": NaN}': "is not JSON",
    b'{"edge": ' + b"9" * 5000 + b"}": "is not JSON",
    b"[" * 100_000: "nested too deeply",
    json.dumps(PLAIN | {"architecture": ["arm64"]}).encode(): "'architecture' must be a text",
    json.dumps(PLAIN | {"architecture": "x86"}).encode(): "allowed: arm64, host",
    json.dumps(PLAIN | {"settings": [1]}).encode(): "'settings' must be an object",
    json.dumps(PLAIN | {"setings": {}}).encode(): "unknown keys ['setings']",
    json.dumps(PLAIN | {"\ud800": 1}).encode(): "unknown keys",
}


@pytest.mark.parametrize("raw", BROKEN, ids=lambda raw: repr(raw[:24]))
def test_a_broken_file_is_told_in_a_line(stages: Path, raw: bytes) -> None:
    (stages / "qa.json").write_bytes(raw)
    with pytest.raises(StageError) as caught:
        load_stage("qa")
    told = str(caught.value)
    assert told.startswith("qa.json: ") and BROKEN[raw] in told and "\n" not in told


def test_a_file_with_a_byte_order_mark_is_read(stages: Path) -> None:
    (stages / "qa.json").write_bytes(b"\xef\xbb\xbf" + json.dumps(PLAIN).encode())
    assert load_stage("qa").edge


def test_what_is_no_file_is_told(stages: Path) -> None:
    (stages / "qa.json").mkdir()
    (stages / "qb.json").symlink_to(stages / "gone")
    (stages / "prod-eu.json").write_text(json.dumps(PLAIN))
    for name, named in (
        ("qa", "qa.json: cannot be read"),
        ("qb", "qb.json: cannot be read"),
        ("prod-eu", "letters and digits"),
        ("nowhere", "does not exist; allowed: prod-eu, qa, qb"),
        ("../qa", "does not exist"),
    ):
        with pytest.raises(StageError, match=named):
            load_stage(name)


_ENTRY = """
import runpy, sys
from pathlib import Path
import infra.stage
infra.stage.STAGES = Path(sys.argv.pop(1))
module = sys.argv.pop(1)
runpy.run_module(module, run_name="__main__")
"""


#: What is wrong with a file, each told by the entry of `cdk synth` or by that of `make synth`.
_SYNTH, _MAKE = ["infra.app"], ["ops.deploy", "synth", "--stage", "qa"]


@pytest.mark.parametrize(
    ("command", "raw", "named"),
    [
        (_MAKE, b"[]", "qa.json: must be a JSON object"),
        (_MAKE, b"\xff", "qa.json: is not UTF-8"),
        (_SYNTH, json.dumps(PLAIN | {"settings": {"REALTIME_ENABLED": None}}).encode(), "REALTIME_ENABLED=null"),
        (_MAKE, json.dumps(PLAIN | {"settings": {"\ud800": 1}}).encode(), "unknown settings"),
        (_MAKE, None, "'qa' does not exist"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_the_commands_end_with_a_line(tmp_path: Path, command: list[str], raw: bytes | None, named: str) -> None:
    if raw is not None:
        (tmp_path / "qa.json").write_bytes(raw)
    done = subprocess.run(
        [sys.executable, "-c", _ENTRY, str(tmp_path), *command],
        cwd=ROOT,
        env={**os.environ, "CDK_CONTEXT_JSON": '{"stage": "qa"}'},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert named in done.stderr and len(done.stderr.strip().splitlines()) == 1


def test_the_last_credential_key_encrypts(stages: Path) -> None:
    assert stage(stages).credential_keys == (1,)
    assert stage(stages, credential_keys=[2, 5]).credential_keys == (2, 5)


@pytest.mark.parametrize("keys", [[], [2, 1], [1, 1], [0], [-1], [10_000], ["1"], [True], [1.0], [None], [[1]]])
def test_credential_keys_are_rising_numbers(stages: Path, keys: list[object]) -> None:
    told = problem(stages, credential_keys=keys)
    assert told.startswith("qa.json: 'credential_keys' is ") and "the last one encrypts" in told


@pytest.mark.parametrize("keys", [None, 1, "1,2", {"1": 2}])
def test_credential_keys_are_a_list(stages: Path, keys: object) -> None:
    assert problem(stages, credential_keys=keys) == "qa.json: 'credential_keys' must be a list"


def test_nobody_is_told_of_alarms_unless_a_topic_is_named(stages: Path) -> None:
    assert stage(stages).alarm_topic_arn is None
    topic = "arn:aws-cn:sns:cn-north-1:111122223333:on-call"
    assert stage(stages, alarm_topic_arn=topic).alarm_topic_arn == topic


@pytest.mark.parametrize("topic", ["", "on-call", "arn:aws:sqs:eu-west-1:111122223333:on-call"])
def test_what_is_told_of_alarms_is_a_topic(stages: Path, topic: str) -> None:
    told = problem(stages, alarm_topic_arn=topic)
    assert told.startswith("qa.json: 'alarm_topic_arn' is ") and "the ARN of an SNS topic" in told
