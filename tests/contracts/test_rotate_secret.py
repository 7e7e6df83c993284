"""`make rotate-secret` and `make secrets` on moto's Secrets Manager and CloudFront, with the time moved."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from itertools import count
from typing import Any

import pytest

from ops import rotate_secret, rotation, secret_versions
from ops.rotate_secret import UNFINISHED, Deployed, main
from tests.deployment import aws
from tidegate.domain.client_ip import ORIGIN_HEADER
from tidegate.domain.secret_names import CURRENT, LABELS, SECRETS

_NUMBERS = count(1)


class Time:
    """Moves the time that AWS is taken to answer at."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ahead = 0.0
        real = secret_versions.server_time
        monkeypatch.setattr("ops.rotate_secret.time.sleep", self.sleep)
        monkeypatch.setitem(
            secret_versions.SecretVersions.__init__.__kwdefaults__ or {},
            "time_of",
            lambda answer: real(answer) + self.ahead,
        )

    def sleep(self, seconds: float) -> None:
        self.ahead += seconds


@pytest.fixture
def stage(moto_url: str, monkeypatch: pytest.MonkeyPatch) -> Deployed:
    secrets, cloudfront = aws(moto_url, "secretsmanager"), aws(moto_url, "cloudfront")
    outputs = {"SecretWaits": json.dumps({"cache": 300, "jwt": 7200, "jwt-gateway": 300, "limiter-salt": 300})}
    for variable in SECRETS:
        name = f"s{next(_NUMBERS)}-{variable}"
        made = secrets.create_secret(Name=name, SecretString=f"first-{variable}")
        outputs[variable.title().replace("_", "")] = made["ARN"]
    header = {"HeaderName": ORIGIN_HEADER, "HeaderValue": "first-ORIGIN_SECRET_ARN"}
    outputs["DistributionId"] = cloudfront.create_distribution(DistributionConfig=distribution(header))["Distribution"][
        "Id"
    ]
    deployed = Deployed(lambda service: aws(moto_url, service), outputs)
    monkeypatch.setattr(rotate_secret, "deployed", lambda name: deployed)
    return deployed


def distribution(header: Mapping[str, str]) -> dict[str, Any]:
    origin = {
        "Id": "api",
        "DomainName": "api.example.com",
        "CustomHeaders": {"Quantity": 1, "Items": [dict(header)]},
        "CustomOriginConfig": {"HTTPPort": 80, "HTTPSPort": 443, "OriginProtocolPolicy": "https-only"},
    }
    return {
        "CallerReference": f"r{next(_NUMBERS)}",
        "Comment": "",
        "Enabled": True,
        "Origins": {"Quantity": 1, "Items": [origin]},
        "DefaultCacheBehavior": {"TargetOriginId": "api", "ViewerProtocolPolicy": "https-only"},
    }


def values(stage: Deployed, variable: str) -> dict[str, str]:
    client = stage.client("secretsmanager")
    found = {}
    for label in LABELS:
        try:
            answer = client.get_secret_value(
                SecretId=stage.outputs[variable.title().replace("_", "")], VersionStage=label
            )
        except client.exceptions.ResourceNotFoundException:
            continue
        found[label] = answer["SecretString"]
    return found


@pytest.mark.parametrize("variable", sorted(SECRETS))
def test_a_secret_is_rotated_to_the_end(
    stage: Deployed, variable: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    time = Time(monkeypatch)
    assert main(["--stage", "any", "--name", SECRETS[variable]]) == 0
    shown = capsys.readouterr().out
    assert [word for word in ("added", "current one", "dropped", "done") if word in shown] == [
        "added",
        "current one",
        "dropped",
        "done",
    ]
    after = values(stage, variable)
    assert after.keys() == {CURRENT} and after[CURRENT] != f"first-{variable}" and len(after[CURRENT]) == 64
    assert after[CURRENT] not in shown
    assert time.ahead > 300, "six minutes, less the time that this test takes"
    if variable == "ORIGIN_SECRET_ARN":
        (origin,) = stage.client("cloudfront").get_distribution(Id=stage.outputs["DistributionId"])["Distribution"][
            "DistributionConfig"
        ]["Origins"]["Items"]
        assert origin["CustomHeaders"]["Items"][0]["HeaderValue"] == after[CURRENT]
    assert main(["--stage", "any", "--name", SECRETS[variable]]) == 1
    assert "refused: the current value is" in capsys.readouterr().err
    assert values(stage, variable) == after


def test_without_waiting_it_says_what_is_left(
    stage: Deployed, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    time = Time(monkeypatch)
    given = "a-value-that-another-operator-uses-too-0123456789"
    monkeypatch.setattr("sys.stdin", io.StringIO(given + "\n"))
    command = ["--stage", "any", "--name", "jwt", "--no-wait", "--json"]
    assert main([*command, "--value-from-stdin"]) == UNFINISHED
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [event["step"] for event in events] == ["add", "wait"] and 300 < events[1]["seconds"] <= 360
    time.ahead += 361
    assert main(command) == UNFINISHED
    assert values(stage, "JWT_SECRET_ARN")[CURRENT] == given
    main(["--stage", "any"])
    assert "until nothing is in use that the old value made" in capsys.readouterr().out
    time.ahead += 7200
    assert main(command) == 0
    assert values(stage, "JWT_SECRET_ARN") == {CURRENT: given}


def test_all_secrets_are_shown_and_no_value(
    stage: Deployed, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Time(monkeypatch)
    assert main(["--stage", "any"]) == 0
    shown = capsys.readouterr().out
    assert shown.split()[:6] == ["secret", "current", "previous", "pending", "edge", "next"]
    assert [line.split()[0] for line in shown.splitlines()[1:]] == list(SECRETS.values())
    assert "first-" not in shown and shown.count("nothing is under way") == len(SECRETS)
    assert main(["--stage", "any", "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {row["secret"]: row["edge"] for row in rows}["origin"].startswith("current")


def test_errors_name_what_is_wrong(
    stage: Deployed, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--stage", "any", "--name", "other"]) == 1
    assert "it has: jwt, jwt-gateway" in capsys.readouterr().err
    monkeypatch.setattr("sys.stdin", io.StringIO("changeme"))
    assert main(["--stage", "any", "--name", "jwt", "--value-from-stdin"]) == 1
    refused = capsys.readouterr().err
    assert "too weak" in refused and "changeme" not in refused
    monkeypatch.undo()
    assert main(["--stage", "nowhere"]) == 1
    assert "STAGE='nowhere' does not exist" in capsys.readouterr().err


def test_a_wait_is_looked_at_again_within_seconds() -> None:
    assert rotation.LOOK_S <= 30
