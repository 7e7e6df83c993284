"""Rotations over time: what viewers meet meanwhile, ends at any point, and two at once."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise
from typing import Any

import pytest

from ops.edge_header import EdgeHeader
from ops.rotation import Event, Rotation, RotationRefused
from ops.secret_versions import SecretVersions
from tests.doubles.platform import ManualClock, MemoryObserver
from tests.doubles.secrets_manager import OneSecret
from tidegate.adapters.aws.secrets_manager import REFRESH_S, Secret, key_id
from tidegate.adapters.tokens_jwt import JwtSessionTokens
from tidegate.domain.client_ip import ORIGIN_HEADER
from tidegate.domain.rotation import Carried, Waits, waits
from tidegate.domain.secret_names import CURRENT, LABELS, PENDING, PREVIOUS
from tidegate.domain.tokens import SessionClaims
from tidegate.errors import KeyNotYetKnown, TidegateError, Unauthenticated

CACHE_S, LIFE_S = 300, 300
WAITS = waits(CACHE_S, LIFE_S)


class Killed(BaseException):
    """The command ends here, whatever it was about to do."""


def value(number: int) -> str:
    return f"value-{number}-" + "x" * 40


def rotation(secret: OneSecret, new: str, edge: EdgeHeader | None = None) -> Rotation:
    versions = SecretVersions(secret, "secret", new_value=new, time_of=lambda answer: float(answer["now"]))
    return Rotation(versions, WAITS, edge)


def run(secret: OneSecret, new: str, *, again: bool = False, edge: EdgeHeader | None = None) -> list[str]:
    events: list[Event] = []
    rotation(secret, new, edge).run(events.append, secret.clock.advance, again=again)
    return [event.step for event in events if event.step != "wait"]


def check(secret: OneSecret) -> None:
    """A value signs only when every process knows it, and goes only when nothing is in use that it made."""
    for (_, before), (at, after) in pairwise(secret.history):
        if after[CURRENT] != before[CURRENT]:
            known_since = next(since for since, labels in secret.history if after[CURRENT] in labels.values())
            assert at - known_since >= WAITS.caches_s, "signs too early"
        for gone in set(before.values()) - set(after.values()):
            signed = [until for (_, was), (until, _) in pairwise(secret.history) if was[CURRENT] == gone]
            assert not signed or at - max(signed) >= WAITS.old_value_s, "dropped too early"


# --- what viewers meet --------------------------------------------------------------------------------------


class World:
    """Processes that read the secret at different times; each second one of them mints and all of them verify."""

    def __init__(self, processes: int = 6) -> None:
        self.clock = ManualClock()
        self.secret = OneSecret(self.clock, value(0))
        self.observer = MemoryObserver()
        self.chance = random.Random(7)
        self.processes = [self._process() for _ in range(processes)]
        self.tokens: list[tuple[float, str]] = []
        self.refused: list[float] = []
        self.undecided: list[float] = []
        self.began = self.clock.now()

    def _process(self) -> JwtSessionTokens:
        made = Secret(lambda: self.secret, "arn", self.clock, name="jwt-gateway", observer=self.observer)  # type: ignore[arg-type, return-value]
        return JwtSessionTokens(made, "issuer", "audience")

    def sleep(self, seconds: float) -> None:
        for _ in range(round(seconds)):
            self.clock.advance(1)
            self.second()

    def second(self) -> None:
        now = int(self.clock.now())
        if now % 10 == 0:  # functions come and go, so that caches have every age
            self.processes[self.chance.randrange(len(self.processes))] = self._process()
        claims = SessionClaims("u", "d", "s", "datasource:stream", now, now + LIFE_S)
        self.tokens.append((now + LIFE_S, self.chance.choice(self.processes).sign(claims)))
        self.tokens = [each for each in self.tokens if each[0] > now]
        for token in (self.tokens[-1][1], self.tokens[0][1], self.chance.choice(self.tokens)[1]):
            for process in self.processes:
                try:
                    process.verify(token, now)
                except KeyNotYetKnown:
                    self.undecided.append(self.clock.now() - self.began)
                except Unauthenticated:
                    self.refused.append(self.clock.now() - self.began)


def test_two_rotations_in_a_row_refuse_nobody() -> None:
    world = World()
    world.sleep(200)
    for number in (1, 2):
        steps: list[Event] = []
        rotation(world.secret, value(number)).run(steps.append, world.sleep, again=True)
        assert [event.step for event in steps if event.step != "wait"] == ["add", "switch", "drop", "drop", "done"]
    world.sleep(400)
    assert (world.refused, world.undecided) == ([], [])
    assert world.observer.counts["secret_previous_used", "jwt-gateway"] > 0
    assert world.secret.labels.keys() == {CURRENT} and world.secret.value(CURRENT) == value(2)
    check(world.secret)


def test_a_value_that_is_set_by_hand_shows_what_the_stages_are_for() -> None:
    world = World()
    world.sleep(200)
    world.secret.rotate_plainly(value(1))
    world.sleep(CACHE_S)
    assert world.undecided and max(world.undecided) - 200 <= REFRESH_S + 1, "it passes, and the client may come back"
    assert world.refused == [], "nobody is told that the token is wrong"
    with pytest.raises(AssertionError, match="signs too early"):
        check(world.secret)


# --- killed, and two at once --------------------------------------------------------------------------------


def requests_of_a_rotation() -> int:
    secret = OneSecret(ManualClock(), value(0))
    run(secret, value(1))
    return secret.requests


def killed_at(secret: OneSecret, number: int, *, lost: bool) -> None:
    """End a rotation at a request: before it is made, or when its answer is lost."""

    def die(request: int) -> None:
        if request == number + lost:
            raise Killed

    secret.before = die
    with pytest.raises(Killed):
        run(secret, value(1))
    secret.before = lambda request: None


def test_a_rotation_that_was_killed_is_gone_on_with() -> None:
    last = requests_of_a_rotation()
    assert last > 50
    for number in range(1, last):
        secret = OneSecret(ManualClock(), value(0))
        killed_at(secret, number, lost=False)
        try:
            run(secret, value(2))
        except RotationRefused:
            assert secret.labels.keys() == {CURRENT}, "it had been done to the last step"
        check(secret)
        assert secret.labels.keys() == {CURRENT}
        assert secret.value(CURRENT) in (value(1), value(2))
        assert len({text for text, _ in secret.versions.values()}) == 2, "one new value, not two"


@pytest.mark.parametrize("other_waits", [False, True], ids=["does what is due", "goes on to the end"])
def test_two_at_once_make_one_rotation(other_waits: bool) -> None:
    for number in range(1, requests_of_a_rotation()):
        secret = OneSecret(ManualClock(), value(0))

        def other(request: int, number: int = number, secret: OneSecret = secret) -> None:
            if request != number:
                return
            secret.before = lambda request: None
            with suppress(RotationRefused):  # it came when all was done
                rotation(secret, value(2)).run(lambda event: None, secret.clock.advance, wait=other_waits)

        secret.before = other
        try:
            run(secret, value(1))
        except RotationRefused:
            assert other_waits, "it took part, so it sees its end"
        check(secret)
        assert secret.labels.keys() == {CURRENT}
        assert len({text for text, _ in secret.versions.values()}) == 2, "one new value, not two"


def test_a_second_rotation_is_refused_too_early_and_not_later() -> None:
    secret = OneSecret(ManualClock(), value(0))
    run(secret, value(1))
    with pytest.raises(RotationRefused, match="may begin in 600 s"):
        run(secret, value(2))
    secret.clock.advance(600)
    assert run(secret, value(2))[0] == "add" and secret.value(CURRENT) == value(2)
    check(secret)


def test_after_a_rotation_by_hand_the_old_value_is_waited_for() -> None:
    secret = OneSecret(ManualClock(), value(0))
    secret.clock.advance(5000)
    secret.rotate_plainly(value(1))
    secret.history = secret.history[-1:]
    assert run(secret, value(2)) == ["drop", "add", "switch", "drop", "drop", "done"]
    assert secret.clock.now() - secret.history[0][0] >= 2 * WAITS.old_value_s + WAITS.caches_s
    check(secret)


def test_a_label_that_was_taken_by_hand_does_not_stop_the_next_rotation() -> None:
    secret = OneSecret(ManualClock(), value(0))
    assert not rotation(secret, value(1)).run(lambda event: None, secret.clock.advance, wait=False)
    del secret.labels[PENDING]
    assert run(secret, value(2))[-1] == "done" and secret.value(CURRENT) == value(2)
    check(secret)


def test_a_foreign_pending_version_is_left_alone() -> None:
    secret = OneSecret(ManualClock(), value(0))
    secret.put_secret_value(SecretId="", ClientRequestToken="theirs", SecretString=value(5), VersionStages=[PENDING])
    with pytest.raises(RotationRefused, match="theirs"):
        run(secret, value(1))
    assert secret.value(PENDING) == value(5)


def test_errors_and_events_show_no_value(capsys: pytest.CaptureFixture[str]) -> None:
    secret, events = OneSecret(ManualClock(), value(0)), []
    made = rotation(secret, value(1))
    made.run(lambda event: events.append(repr(event)), secret.clock.advance)
    assert not [text for text in (*events, repr(made.state()), str(vars(made))) if "value-" in text]


# --- tokens and their keys ----------------------------------------------------------------------------------


def tokens_of(secret: OneSecret, clock: ManualClock) -> JwtSessionTokens:
    return JwtSessionTokens(Secret(lambda: secret, "arn", clock), "issuer", "audience")  # type: ignore[arg-type, return-value]


def signed(number: int, now: float) -> str:
    claims = SessionClaims("u", "d", "s", "datasource:stream", int(now), int(now) + LIFE_S)
    return tokens_of(OneSecret(ManualClock(now), value(number)), ManualClock(now)).sign(claims)


def forged(token: str) -> str:
    head, body, signature = token.split(".")
    return f"{head}.{body}.{signature[:-4]}AAAA"


def test_an_unknown_key_is_undecided_until_the_secret_was_read_again() -> None:
    clock = ManualClock()
    secret = OneSecret(clock, value(0))
    tokens, now = tokens_of(secret, clock), clock.now()
    tokens.verify(signed(0, now), now)
    with pytest.raises(KeyNotYetKnown) as unknown:
        tokens.verify(signed(1, now), now)
    assert unknown.value.temporary
    secret.rotate_plainly(value(1))
    clock.advance(REFRESH_S)
    assert tokens.verify(signed(1, now), now)
    clock.advance(REFRESH_S)
    with pytest.raises(Unauthenticated):
        tokens.verify(signed(9, now), now)  # read just now, and there is no such key


def test_a_forged_token_is_refused_and_reads_nothing() -> None:
    clock = ManualClock()
    secret = OneSecret(clock, value(0))
    tokens, now = tokens_of(secret, clock), clock.now()
    tokens.verify(signed(0, now), now)
    clock.advance(CACHE_S - 1)
    secret.readable = False  # a reading would be undecided
    for garbage in ("", "x", "a.b.c", forged(signed(0, now))):
        with pytest.raises(Unauthenticated):
            tokens.verify(garbage, now)


def test_invented_keys_cause_one_reading_in_the_refresh_time() -> None:
    clock = ManualClock()
    secret = OneSecret(clock, value(0))
    readings: list[object] = []
    call = secret.call

    def counted(operation: str, payload: Any) -> Any:
        readings.append(payload)
        return call(operation, payload)

    secret.call = counted  # type: ignore[method-assign]
    tokens, now = tokens_of(secret, clock), clock.now()
    for number in range(100):
        secret.readable = number < 50  # an outage does not loosen the bound
        with pytest.raises(TidegateError):
            tokens.verify(signed(100 + number, now), now)
        clock.advance(1)
    assert len(readings) <= (100 / REFRESH_S + 1) * len(LABELS)


def test_tokens_without_a_key_are_tried_with_every_value() -> None:
    import jwt

    clock = ManualClock()
    secret = OneSecret(clock, value(0))
    tokens, now = tokens_of(secret, clock), int(clock.now())
    secret.put_secret_value(SecretId="", ClientRequestToken="p", SecretString=value(1), VersionStages=[PENDING])
    body = jwt.decode(signed(1, now), options={"verify_signature": False})
    assert tokens.verify(jwt.encode(body, value(1)), now), "of a remote API whose new value was added first"
    with pytest.raises(Unauthenticated):
        tokens.verify(jwt.encode(body, value(2)), now)


def test_the_name_of_a_key_is_short_and_its_own() -> None:
    assert len({key_id(value(number)) for number in range(100)}) == 100
    assert len(key_id(value(0))) == 16 and key_id(value(0)) not in value(0)


# --- the origin secret --------------------------------------------------------------------------------------


class OneDistribution:
    """CloudFront with one distribution that takes a while to deploy, and checks If-Match."""

    def __init__(self, clock: ManualClock, value: str) -> None:
        self.clock, self.etag, self.deployed_at = clock, 1, clock.now()
        header = {"HeaderName": ORIGIN_HEADER, "HeaderValue": value}
        self.values = [value, value]
        self.header = header
        self.sent: list[tuple[float, list[str]]] = [(clock.now(), [value, value])]
        self.before_update: Callable[[], None] = lambda: None

    def get_distribution(self, *, Id: str) -> Any:  # noqa: N803
        origins = [{"Id": "console"}] + [
            {"Id": str(n), "CustomHeaders": {"Quantity": 1, "Items": [self.header | {"HeaderValue": value}]}}
            for n, value in enumerate(self.values)
        ]
        status = "Deployed" if self.clock.now() >= self.deployed_at else "InProgress"
        config = {"Origins": {"Quantity": 3, "Items": origins}}
        return {"ETag": f"E{self.etag}", "Distribution": {"Status": status, "DistributionConfig": config}}

    def update_distribution(self, *, Id: str, IfMatch: str, DistributionConfig: Any) -> None:  # noqa: N803
        self.before_update()
        if IfMatch != f"E{self.etag}":
            from botocore.exceptions import ClientError

            raise ClientError({"Error": {"Code": "PreconditionFailed", "Message": ""}}, "")
        self.etag += 1
        items = DistributionConfig["Origins"]["Items"]
        self.values = [item["CustomHeaders"]["Items"][0]["HeaderValue"] for item in items if "CustomHeaders" in item]
        self.deployed_at = self.clock.now() + 240


def verifying(secret: OneSecret) -> Secret:
    return Secret(lambda: secret, "arn", secret.clock)  # type: ignore[arg-type, return-value]


def test_everything_answers_through_two_rotations_of_the_origin_secret() -> None:
    clock = ManualClock()
    secret, edge = OneSecret(clock, value(0)), OneDistribution(clock, value(0))
    verifiers = [verifying(secret) for _ in range(10)]
    previous: list[str] = []
    refused: list[float] = []

    def sleep(seconds: float) -> None:
        for _ in range(round(seconds)):
            clock.advance(1)
            if clock.now() % 7 == 0:
                verifiers.append(verifying(secret))
                verifiers.pop(0).accepts("")
            # While it deploys, some locations add the new value, some still the one before.
            values = {*edge.values, *(previous if clock.now() < edge.deployed_at else [])}
            refused.extend(clock.now() for one in verifiers for given in values if not one.accepts(given))

    edge.before_update = lambda: previous.__setitem__(slice(None), edge.values)
    for number in (1, 2):
        made = rotation(secret, value(number), EdgeHeader(edge, "D"))
        made.run(lambda event: None, sleep, again=True)
        assert edge.values == [value(number)] * 2 and made.state().carrier is not None
    sleep(400)
    assert refused == []
    check(secret)


def test_a_distribution_that_lost_the_value_is_mended_at_once() -> None:
    clock = ManualClock()
    secret, edge = OneSecret(clock, value(0)), OneDistribution(clock, value(0))
    secret.rotate_plainly(value(1))
    secret.rotate_plainly(value(2))
    made = rotation(secret, value(3), EdgeHeader(edge, "D"))
    state = made.state()
    assert state.carrier is not None and state.carrier.value is Carried.UNKNOWN
    assert not made.run(lambda event: None, clock.advance, wait=False)
    assert edge.values == [value(2)] * 2 and clock.now() == state.now


def test_a_change_of_the_distribution_meanwhile_is_not_undone() -> None:
    clock = ManualClock()
    secret, edge = OneSecret(clock, value(0)), OneDistribution(clock, value(0))

    def other() -> None:
        edge.before_update = lambda: None
        edge.etag += 1

    edge.before_update = other
    assert run(secret, value(1), edge=EdgeHeader(edge, "D")) == ["add", "switch", "carry", "drop", "drop", "done"]
    assert edge.values == [value(1)] * 2 and PREVIOUS not in secret.labels


def test_waits_follow_the_cache() -> None:
    assert waits(300, 60) == Waits(360, 60) and waits(5, 0) == Waits(6, 0)
