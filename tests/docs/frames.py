"""Real frames of every kind, from a run of the code over doubles with a fixed clock and counting ids.

`python -m tests.docs.frames` writes them into docs/reference/protocol.md, each below its `<!-- frame: name -->`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable

from tests.containers.gateway import DASHBOARD, DATASOURCE
from tests.containers.revalidation import RevalidationContainer
from tests.docs.pages import REFERENCE
from tidegate.domain.budgets import new_subscriptions
from tidegate.domain.intents import build_intent, intent_hash
from tidegate.domain.revocations import Task, TaskKind
from tidegate.domain.subscriptions import LastValue
from tidegate.domain.tokens import DASHBOARD_SCOPE
from tidegate.ports.delivery import Delivery
from tidegate.protocol.messages import ErrorCode

PAGE = REFERENCE / "protocol.md"
_FRAME = re.compile(r"(<!-- frame: ([a-z ,]+) -->\n```json\n)(.*?)(\n```)", re.S)
#: A datasource of the relay beside the container's own, which an IoT rule feeds.
RELAYED = "price"


class Scene:
    """A gateway with one browser, whose messages and frames are kept as they are on the wire."""

    def __init__(self, *, batch: bool = False) -> None:
        self.container = RevalidationContainer()
        self._add_relayed()
        self.wire: list[str] = []
        self._record()
        self.container.open("c", batch=batch)

    def _add_relayed(self) -> None:
        datasource = {"id": RELAYED, "type": "sse", "settings": {"url": "https://example.com/stream"}}
        intent = build_intent(DASHBOARD, datasource)
        self.container.access.intents[(DASHBOARD, RELAYED)] = intent
        hashes = dict(self.container.access.dashboards[DASHBOARD].intents)
        self.container.change(intents=hashes | {RELAYED: intent_hash(intent)})

    def _record(self) -> None:
        post = self.container.sender.post

        def recorded(connection_id: str, body: bytes) -> Delivery:
            self.wire.append(body.decode())
            return post(connection_id, body)

        self.container.sender.post = recorded  # type: ignore[method-assign]  # every way of sending ends there

    def says(self, **fields: object) -> str:
        """A client message is handled; returns it as it was sent."""
        text = json.dumps(fields, separators=(",", ":"))
        self.container.handle("c", text)
        return text

    def subscribes(self, datasource_id: str = DATASOURCE, token: str | None = None) -> str:
        token = self.container.token(datasource_id) if token is None else token
        return self.says(
            type="subscribe", requestId="r-1", dashboardId=DASHBOARD, datasourceId=datasource_id, sessionToken=token
        )

    def subscribes_to_all(self) -> str:
        """Refreshes what is watched, and watches the other."""
        token = self.container.token("", scope=DASHBOARD_SCOPE, intent_hash=None)
        ids = [DATASOURCE, RELAYED]
        return self.says(
            type="subscribe", requestId="r-1", dashboardId=DASHBOARD, datasourceIds=ids, sessionToken=token
        )

    def taken(self) -> list[str]:
        """What was sent since this was last asked."""
        wire, self.wire = self.wire, []
        return wire


def frames() -> dict[str, str]:
    """Every example of the page: its name -> the message as it is on the wire."""
    return {
        **_watching(),
        **_topics(),
        **_recovered(),
        **_refused(),
        **_limited(),
        **_ended("revoked", lambda scene: scene.container.revoke()),
        **_ended("expired", lambda scene: scene.container.clock.advance(301)),
        **_saved(),
        **_upstream(),
        **_batched(),
    }


def _watching() -> dict[str, str]:
    scene, found = Scene(), {}
    found["subscribe"] = scene.subscribes()
    found["ack"], found["status connected"] = scene.taken()
    found["subscribe several"] = scene.subscribes_to_all()
    scene.taken()
    scene.says(type="unsubscribe", requestId="r-1", datasourceId=RELAYED)
    scene.taken()
    scene.container.publish(b'{"celsius": 21.50}')
    (found["data"],) = scene.taken()
    found["ping"] = scene.says(type="ping", requestId="r-2")
    (found["pong"],) = scene.taken()
    found["unsubscribe"] = scene.says(type="unsubscribe", requestId="r-3", datasourceId=DATASOURCE)
    found["status disconnected"], _ = scene.taken()
    scene.subscribes()
    _, _, found["data retained"] = scene.taken()
    scene.subscribes(RELAYED)
    _, found["status connecting"] = scene.taken()
    return found


def _topics() -> dict[str, str]:
    """A datasource with a wildcard, and a value that its source takes back."""
    scene, found = Scene(), {}
    container = scene.container
    container.add_datasource("sites", "a/+")
    scene.subscribes("sites")
    scene.taken()
    container.publish(b"21.5", "a/north")
    (found["data of a topic"],) = scene.taken()
    (stream,) = (stream for stream in container.streams.rows.values() if stream.by_topic)
    at_ms = round(container.clock.now() * 1000) + 1
    container.fan_out.deliver(stream, LastValue("null", at_ms, "", "a/north", deleted=True))
    (found["data deleted"],) = scene.taken()
    return found


def _recovered() -> dict[str, str]:
    """A viewer who was away, of a datasource with a history."""
    scene, found = Scene(), {}
    container = scene.container
    container.add_datasource("kept", "a/b", history={"seconds": 600, "everyMs": 1000})
    scene.subscribes("kept")
    container.clock.advance(10)
    container.publish(b"21.5")
    since = json.loads(scene.taken()[-1])["seq"]
    scene.says(type="unsubscribe", requestId="r-2", datasourceId="kept")
    for payload in (b"19", b"23.50"):
        container.clock.advance(0.6)
        container.publish(payload)
    scene.taken()
    asked = {"dashboardId": DASHBOARD, "datasourceId": "kept", "sessionToken": container.token("kept")}
    found["subscribe since"] = scene.says(type="subscribe", requestId="r-3", **asked, since=since)
    found["ack recovered"], _, found["history"], _ = scene.taken()
    container.catch_up(container.catch_ups.queued[-1])
    found["history end"] = scene.taken()[-1]
    return found


def _refused() -> dict[str, str]:
    scene, found = Scene(), {}
    scene.subscribes(token=scene.container.token(share_version=0))
    (found["ack refused"],) = scene.taken()
    scene.says(type="hello")
    (found["error without a datasource"],) = scene.taken()
    return found


def _limited() -> dict[str, str]:
    scene, found = Scene(), {}
    for _ in range(new_subscriptions(50)):
        scene.subscribes()
        scene.says(type="unsubscribe", requestId="r-2", datasourceId=DATASOURCE)
    scene.subscribes()
    found["ack limited"] = scene.taken()[-1]
    for _ in range(600):
        scene.says(type="hello")
    found["error limited"] = scene.taken()[-1]
    return found


def _ended(why: str, end: Callable[[Scene], object]) -> dict[str, str]:
    scene, found = Scene(), {}
    scene.subscribes()
    scene.taken()
    end(scene)
    assert scene.container.run(Task(TaskKind.DASHBOARD, DASHBOARD)) == 1
    found[f"error {why}"], found[f"status {why}"] = scene.taken()
    return found


def _saved() -> dict[str, str]:
    scene = Scene()
    scene.subscribes()
    scene.taken()
    scene.container.change(revision=7)
    scene.container.run(scene.container.save())
    (document,) = scene.taken()
    return {"document": document}


def _upstream() -> dict[str, str]:
    """What the relay tells of an upstream that broke, through the same fan-out as the bridge."""
    scene, found = Scene(), {}
    scene.subscribes(RELAYED)
    scene.taken()
    (stream,) = scene.container.streams.of_source(None).streams
    text = "Upstream rejected connection"
    scene.container.fan_out.notify(stream, ErrorCode.CONNECT_REFUSED, text, status=True)
    found["error upstream"], found["status upstream"] = scene.taken()
    return found


def _batched() -> dict[str, str]:
    scene = Scene(batch=True)
    scene.subscribes()
    (batch,) = scene.taken()
    return {"batch": batch}


def written(page: str, examples: dict[str, str]) -> str:
    """The page with these examples in place of those it has."""
    return _FRAME.sub(lambda match: match[1] + "\n".join(examples[name] for name in named(match[2])) + match[4], page)


def named(names: str) -> list[str]:
    """The names of a block, which may hold several frames."""
    return [name.strip() for name in names.split(",")]


def shown(page: str) -> list[str]:
    """Names of the examples of a page, in order."""
    return [name for match in _FRAME.finditer(page) for name in named(match[2])]


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(), frames()))
