"""The key that encrypts credentials gets a successor while everything goes on: on moto's KMS and DynamoDB.

The cipher, the profiles, what the relay opens, and the command are the real ones. What the command sends to AWS can be
watched, and ended, at each call.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest

import ops.deploy
from infra.stage import load_stage
from ops import rotate_secret
from ops.credential_key import CredentialKey
from ops.rotate_secret import UNFINISHED, Deployed, main
from ops.rotation import Event, RotationRefused
from tests.deployment import aws
from tidegate.adapters.aws.credential_cipher import KmsCredentialCipher
from tidegate.adapters.aws.json_client import AwsError, JsonClient
from tidegate.adapters.dynamodb.client import DynamoDb
from tidegate.adapters.dynamodb.profiles import DynamoProfiles
from tidegate.domain.credential_keys import SETTLED_S, CredentialKeys
from tidegate.domain.profiles import CREDENTIAL, CredentialProfile, CredentialType
from tidegate.domain.subscriptions import Stream
from tidegate.errors import Conflict
from tidegate.ports.relay import UpstreamRequest
from tidegate.providers.control_plane import ControlPlaneProviders
from tidegate.tables import ALL_TABLES, PROFILES
from tidegate.usecases.relay.upstream_requests import StoredUpstreamRequests

#: Calls of KMS and DynamoDB by the command.
Watch = Callable[[str], None]


class Killed(BaseException):
    """The command ends here, whatever it was about to do."""


class Watched:
    """A client that tells before a call and after it, as `<operation>` and `<operation> done`."""

    def __init__(self, client: JsonClient, watch: Watch) -> None:
        self._client = client
        self._watch = watch

    def call(self, operation: str, payload: Mapping[str, Any], **options: Any) -> dict[str, Any]:
        self._watch(operation)
        answer = self._client.call(operation, payload, **options)
        self._watch(f"{operation} done")
        return answer


class Stage:
    """A stage with two credential keys, and credentials under the first."""

    def __init__(self, env: Mapping[str, str], count: int = 3) -> None:
        url = env["AWS_ENDPOINT_URL"]
        arns = [aws(url, "kms").create_key()["KeyMetadata"]["Arn"] for _ in range(2)]
        self.env = env
        self.keys = CredentialKeys(dict(enumerate(arns, 1)))
        self.providers = ControlPlaneProviders(env)
        self.profiles = self.providers.profiles
        self.old, self.new = (self.cipher(number) for number in self.keys.arns)
        self.ids = [f"p{number}" for number in range(count)]
        for each in self.ids:
            self.profiles.write_credential(None, profile(each), self.old.encrypt(each, {"token": f"t0ken-{each}"}))

    def cipher(self, number: int, watch: Watch = lambda _: None) -> KmsCredentialCipher:
        kms = Watched(self.providers.aws("kms", "TrentService", "1.1"), watch)
        return KmsCredentialCipher(kms, self.keys.arns[number])  # type: ignore[arg-type]

    def command(self, watch: Watch = lambda _: None, keys: CredentialKeys | None = None) -> CredentialKey:
        keys = keys or self.keys
        db = Watched(self.providers.aws("dynamodb", "DynamoDB_20120810", "1.0"), watch)
        profiles = DynamoProfiles(DynamoDb(db), self.env[PROFILES.variable])  # type: ignore[arg-type]
        return CredentialKey(keys, profiles, self.cipher(keys.newest, watch), "infra/stages/any.json")

    def under(self) -> dict[str, int | None]:
        return {each: self.keys.number(self.new.key_of(sealed)) for each, sealed in self.profiles.sealed_secrets()}

    def token(self, profile_id: str) -> str:
        """What the relay sends for the profile: it opens with whatever key the secret is under."""
        intent = {
            "protocol": "sse",
            "url": "https://upstream.example/",
            "headers": {},
            "authPlacement": "header",
            "credentialProfileId": profile_id,
            "credentialRevision": 1,
        }
        stream = Stream("stream", "sse", "json", None, None, last_requested_at=0, intent=intent)
        made = StoredUpstreamRequests(profiles=self.profiles, cipher=self.new)(stream)
        assert isinstance(made, UpstreamRequest) and made.credential is not None
        return made.credential.sent(made.url, {}, "sse")[1]["Authorization"].removeprefix("Bearer ")

    def readable(self) -> None:
        assert {each: self.token(each) for each in self.ids} == {each: f"t0ken-{each}" for each in self.ids}


def profile(profile_id: str) -> CredentialProfile:
    return CredentialProfile(
        profile_id, profile_id, CredentialType.BEARER, ("https://upstream.example:443",), secret_keys=("token",)
    )


@pytest.fixture
def stage(deployed: Mapping[str, str]) -> Stage:
    return Stage(deployed)


def run(command: CredentialKey) -> list[Event]:
    events: list[Event] = []
    assert command.run(events.append, lambda seconds: None)
    return events


# --- from one key to the next -------------------------------------------------------------------------------


def test_every_credential_comes_under_the_newest_key(stage: Stage) -> None:
    before = {each: stage.profiles.credential(each) for each in stage.ids}
    assert stage.command().held().counts == {1: 3, 2: 0} and set(stage.under().values()) == {1}
    events = run(stage.command())
    assert [event.step for event in events] == ["begin", "reencrypt", *["wait"] * 4, "done"]
    assert events[1].text == "3 of 3 were re-encrypted" and events[2].seconds == SETTLED_S
    assert events[-1].text == (
        "all 3 credentials are under key 2; key 1 may be dropped from `credential_keys` in infra/stages/any.json"
    )
    assert set(stage.under().values()) == {2} and stage.command().held().counts == {1: 0, 2: 3}
    stage.readable()
    # It is the same secret: no revision moved, so no stream connects anew.
    assert {each: stage.profiles.credential(each) for each in stage.ids} == before


def test_the_key_that_a_secret_names_is_the_one_that_kms_opens_it_with(stage: Stage) -> None:
    def opened_with() -> set[str]:
        found = set()
        for profile_id, sealed in stage.profiles.sealed_secrets():
            wrapped = base64.b64decode(json.loads(sealed)["key"])
            answer = kms.decrypt(CiphertextBlob=wrapped, EncryptionContext={"profile": profile_id})
            assert answer["KeyId"] == stage.new.key_of(sealed)
            found.add(answer["KeyId"])
        return found

    kms = aws(stage.env["AWS_ENDPOINT_URL"], "kms")
    assert opened_with() == {stage.keys.arns[1]}
    run(stage.command())
    assert opened_with() == {stage.keys.arns[2]}


def test_a_credential_opens_at_each_moment(stage: Stage) -> None:
    """A viewer may come, and an upstream may break, before and after each call that the command makes."""
    looks: list[str] = []

    def watch(call: str) -> None:
        looks.append(call)
        stage.readable()

    run(stage.command(watch))
    assert looks.count("UpdateItem done") == 3


def test_it_may_end_at_each_call_and_goes_on(deployed: Mapping[str, str]) -> None:
    stage = Stage(deployed)
    calls: list[str] = []
    run(stage.command(calls.append))
    assert len(calls) > 20
    for last in range(len(calls)):
        for each in stage.ids:
            stage.profiles.replace_sealed(
                each, stage.profiles.sealed_secret(each) or "", stage.old.encrypt(each, {"token": f"t0ken-{each}"})
            )
        left = iter(range(last))

        def watch(call: str, left: Iterator[int] = left) -> None:
            if next(left, None) is None:
                raise Killed(call)

        with pytest.raises(Killed):
            run(stage.command(watch))
        stage.readable()
        done = sum(number == 2 for number in stage.under().values())
        events = run(stage.command())
        assert done == 3 or events[0].text == f"{3 - done} of 3 credentials are not under key 2"
        assert events[-1].step == "done" and set(stage.under().values()) == {2}
        stage.readable()


def test_two_at_once_do_the_work_of_one(stage: Stage) -> None:
    """The second runs whole, from each call of the first on."""
    calls: list[str] = []
    run(stage.command(calls.append))
    for at in range(len(calls)):
        for each in stage.ids:
            stage.profiles.replace_sealed(
                each, stage.profiles.sealed_secret(each) or "", stage.old.encrypt(each, {"token": f"t0ken-{each}"})
            )
        left = iter(range(at))
        others: list[Event] = []

        def watch(call: str, left: Iterator[int] = left, others: list[Event] = others) -> None:
            if next(left, None) is None and not others:
                others += run(stage.command())

        assert run(stage.command(watch))[-1].step == "done" and others[-1].step == "done"
        assert set(stage.under().values()) == {2}
        stage.readable()


# --- an admin who writes meanwhile --------------------------------------------------------------------------


def test_a_new_secret_is_never_overwritten_by_the_old_one(stage: Stage) -> None:
    written: list[str] = []

    def watch(call: str) -> None:
        if call == "UpdateItem" and not written:
            # The command has read and encrypted the old secret. Now an admin gives another one.
            written.append("p0")
            before = stage.profiles.credential("p0")
            assert before is not None
            sealed = stage.new.encrypt("p0", {"token": "new-t0ken"})
            stage.profiles.write_credential(before, replace(before, revision=before.revision + 1), sealed)

    run(stage.command(watch))
    assert written and stage.token("p0") == "new-t0ken" and set(stage.under().values()) == {2}


def test_a_request_from_before_the_deployment_is_found(stage: Stage) -> None:
    """It still encrypts with the old key, after the command has gone through all."""
    late: list[float] = []

    def sleep(seconds: float) -> None:
        if not late:
            before = stage.profiles.credential("p1")
            assert before is not None
            sealed = stage.old.encrypt("p1", {"token": "new-t0ken"})
            stage.profiles.write_credential(before, replace(before, revision=before.revision + 1), sealed)
        late.append(seconds)

    events: list[Event] = []
    assert stage.command().run(events.append, sleep)
    assert sum(late) == SETTLED_S and set(stage.under().values()) == {2} and stage.token("p1") == "new-t0ken"


def interrupted(stage: Stage, between: Callable[[], None], operation: str = "TransactWriteItems") -> DynamoProfiles:
    """The profiles as the API has them; `between` happens just before its first write."""
    happened: list[str] = []

    def watch(call: str) -> None:
        if call == operation and not happened:
            happened.append(call)
            between()

    db = Watched(stage.providers.aws("dynamodb", "DynamoDB_20120810", "1.0"), watch)
    return DynamoProfiles(DynamoDb(db), stage.env[PROFILES.variable])  # type: ignore[arg-type]


def test_a_change_that_keeps_the_secret_keeps_its_new_encryption(stage: Stage) -> None:
    """The API has read the old encryption. Writing it back would bring the old key into use behind the command."""
    before = stage.profiles.credential("p0")
    assert before is not None
    profiles = interrupted(stage, lambda: (run(stage.command()), None)[1])
    profiles.write_credential(before, replace(before, name="renamed", revision=before.revision + 1), None)
    assert stage.under()["p0"] == 2
    after = stage.profiles.credential("p0")
    assert after is not None and (after.name, after.revision) == ("renamed", before.revision + 1)
    stage.readable()


def test_a_change_that_keeps_the_secret_still_conflicts_with_another_admin(stage: Stage) -> None:
    before = stage.profiles.credential("p0")
    assert before is not None

    def other() -> None:
        sealed = stage.new.encrypt("p0", {"token": "new-t0ken"})
        stage.profiles.write_credential(before, replace(before, revision=before.revision + 1), sealed)

    with pytest.raises(Conflict):
        interrupted(stage, other).write_credential(
            before, replace(before, name="renamed", revision=before.revision + 1), None
        )
    assert stage.token("p0") == "new-t0ken"


@pytest.mark.parametrize("kept", [True, False])
def test_a_repeated_write_does_not_bring_the_old_encryption_back(stage: Stage, kept: bool) -> None:
    """The answer to a write was lost, the secret was re-encrypted, and the write is sent again."""
    before = stage.profiles.credential("p0")
    assert before is not None
    lost: list[str] = []

    class Losing(Watched):
        def call(self, operation: str, payload: Mapping[str, Any], **options: Any) -> dict[str, Any]:
            answer = super().call(operation, payload, **options)
            if operation == "TransactWriteItems" and not lost:
                lost.append(operation)
                run(stage.command())
                # Another token: a store forgets one after ten minutes.
                return super().call(operation, {**payload, "ClientRequestToken": "another"}, **options)
            return answer

    client = Losing(stage.providers.aws("dynamodb", "DynamoDB_20120810", "1.0"), lambda _: None)
    profiles = DynamoProfiles(DynamoDb(client), stage.env[PROFILES.variable])  # type: ignore[arg-type]
    sealed = None if kept else stage.old.encrypt("p0", {"token": "t0ken-p0"})
    profiles.write_credential(before, replace(before, name="renamed", revision=before.revision + 1), sealed)
    assert lost and stage.under()["p0"] == 2
    stage.readable()


def test_a_profile_deleted_meanwhile_stays_deleted(stage: Stage) -> None:
    def watch(call: str) -> None:
        if call == "UpdateItem":
            stage.profiles.delete(CREDENTIAL, "p0", 1)

    assert run(stage.command(watch))[-1].step == "done"
    assert stage.profiles.credential("p0") is None and set(stage.under()) == {"p1", "p2"}


# --- what cannot be done ------------------------------------------------------------------------------------


def test_an_older_key_is_not_dropped_while_anything_is_under_it(stage: Stage) -> None:
    stage.profiles.replace_sealed(
        "p1", stage.profiles.sealed_secret("p1") or "", stage.old.encrypt("another", {"token": "t0ken"})
    )
    events: list[Event] = []
    with pytest.raises(RotationRefused) as refused:
        stage.command().run(events.append, lambda _: None)
    assert str(refused.value).startswith(
        "1 of 3 credentials are not under key 2 and cannot be opened: p1 (InvalidCiphertextException); keep key 1 in"
    )
    assert not [event for event in events if event.step == "done"] and "t0ken" not in str([events, refused.value])
    assert stage.under() == {"p0": 2, "p1": 1, "p2": 2}


def test_a_secret_that_names_no_key_blocks_it_too(stage: Stage) -> None:
    stage.profiles.replace_sealed("p1", stage.profiles.sealed_secret("p1") or "", "damaged")
    with pytest.raises(RotationRefused, match=r"p1 \(damaged\)"):
        run(stage.command())
    assert stage.command().held().elsewhere == 1


def test_with_one_key_there_is_nothing_to_rotate_to(stage: Stage) -> None:
    only = CredentialKeys({1: stage.keys.arns[1]})
    with pytest.raises(RotationRefused, match=r"add the next number to `credential_keys` in infra/stages/any\.json"):
        run(stage.command(keys=only))


def test_a_key_that_was_dropped_too_early_is_left_once_it_is_readable(stage: Stage) -> None:
    only = CredentialKeys({2: stage.keys.arns[2]})
    assert stage.command(keys=only).held().elsewhere == 3
    assert run(stage.command(keys=only))[-1].text == "all 3 credentials are under key 2"
    stage.readable()


def test_many_are_told_as_they_go(deployed: Mapping[str, str]) -> None:
    events = run(Stage(deployed, count=23).command())
    told = [event.text for event in events if event.step == "reencrypt"]
    assert told == [f"{done} of 23 were re-encrypted" for done in (10, 20, 23)]


# --- the commands -------------------------------------------------------------------------------------------


@pytest.fixture
def commands(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> Stage:
    outputs = {
        "SecretWaits": "{}",
        "CredentialKeys": json.dumps(stage.keys.arns),
        PROFILES.variable.title().replace("_", ""): stage.env[PROFILES.variable],
    }
    deployed = Deployed(
        lambda service: aws(stage.env["AWS_ENDPOINT_URL"], service), outputs, lambda: stage.env, name="any"
    )
    monkeypatch.setattr(rotate_secret, "deployed", lambda name: deployed)
    monkeypatch.setattr("ops.rotate_secret.time.sleep", lambda seconds: None)
    return stage


def test_the_commands_show_and_do_it(commands: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--stage", "any"]) == 0
    shown = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert shown[2:5] == [
        ["credential-key", "use", "credentials"],
        ["key", "2", "encrypts", "0"],
        ["key", "1", "decrypts", "3"],
    ]
    assert shown[5][:5] == ["next:", "3", "to", "re-encrypt:", "run"]
    command = ["--stage", "any", "--name", "credential-key"]
    assert main([*command, "--no-wait", "--json"]) == UNFINISHED
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [event["step"] for event in events] == ["begin", "reencrypt", "wait"]
    assert main(command) == 0
    assert "key 1 may be dropped from `credential_keys` in infra/stages/any.json" in capsys.readouterr().out
    assert main(["--stage", "any", "--json"]) == 0
    (row,) = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert (row["secret"], row["current"], row["credentials"]) == ("credential-key", 2, {"1": 0, "2": 3})


def test_the_command_says_what_is_wrong(
    commands: Stage, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["--stage", "any", "--name", "credential-key"]
    assert main([*command, "--value-from-stdin"]) == 1
    assert "has no value to give" in capsys.readouterr().err
    assert main(["--stage", "any", "--name", "other"]) == 1
    assert "it has: credential-key" in capsys.readouterr().err

    def silent(self: JsonClient, operation: str, *_: object, **__: object) -> dict[str, Any]:
        raise AwsError("kms", operation, "NotAnswered", "", True, {})

    monkeypatch.setattr(JsonClient, "call", silent)
    assert main(command) == 1
    assert "run the command again to go on" in capsys.readouterr().err


# --- a deployment -------------------------------------------------------------------------------------------


@pytest.fixture
def stack(commands: Stage, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """moto's stack of a stage that is deployed with both keys; gives boto3's client of it."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION", "AWS_ENDPOINT_URL"):
        monkeypatch.setenv(name, commands.env[name])
    monkeypatch.setenv("AWS_DEFAULT_REGION", commands.env["AWS_REGION"])
    outputs = {"CredentialKeys": json.dumps(commands.keys.arns), "RevalidationQueueUrl": "https://queue"}
    outputs |= {table.variable.title().replace("_", ""): commands.env[table.variable] for table in ALL_TABLES}
    template = {
        "Resources": {"Topic": {"Type": "AWS::SNS::Topic"}},
        "Outputs": {name: {"Value": value} for name, value in outputs.items()},
    }
    client = aws(commands.env["AWS_ENDPOINT_URL"], "cloudformation")
    client.create_stack(StackName="Tidegate-staging", TemplateBody=json.dumps(template))
    yield client
    client.delete_stack(StackName="Tidegate-staging")


def deploy(monkeypatch: pytest.MonkeyPatch, *keys: int) -> list[str]:
    """Run `make deploy` with these keys in the stage file; what was deployed."""
    came: list[str] = []
    made = replace(load_stage("staging"), credential_keys=keys)
    monkeypatch.setattr(ops.deploy, "load_stage", lambda name: made)

    def deploying(stage: str, _yes: str) -> int:
        # What comes before and after it is in tests/contracts/test_deploy.py.
        ops.deploy.check_credential_keys(stage)
        came.append("deploy")
        return 0

    monkeypatch.setattr(ops.deploy, "deploy", deploying)
    monkeypatch.setattr("sys.argv", ["deploy", "deploy", "--stage", "staging"])
    assert ops.deploy.main() == (0 if came else 1)
    return came


def test_a_deployment_does_not_drop_a_key_that_is_needed(
    commands: Stage, stack: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for dropping in ((2,), (2, 3), (3,)):
        assert deploy(monkeypatch, *dropping) == []
        told = capsys.readouterr().err
        assert "would drop key 1 from `credential_keys`, but 3 credentials are under it" in told
    assert deploy(monkeypatch, 1, 2, 3) == ["deploy"]
    run(commands.command())
    assert deploy(monkeypatch, 2) == ["deploy"]
    assert deploy(monkeypatch, 1) == [] and "would drop key 2" in capsys.readouterr().err


def test_the_first_deployment_drops_nothing(
    commands: Stage, stack: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stack.delete_stack(StackName="Tidegate-staging")
    assert deploy(monkeypatch, 7) == ["deploy"]


def test_a_deployment_that_cannot_be_checked_is_none(
    commands: Stage, stack: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def silent(self: JsonClient, operation: str, *_: object, **__: object) -> dict[str, Any]:
        raise AwsError("dynamodb", operation, "NotAnswered", "", True, {})

    monkeypatch.setattr(JsonClient, "call", silent)
    assert deploy(monkeypatch, 1, 2) == [] and "error: The store cannot be reached" in capsys.readouterr().err
