"""A dashboard is saved: its viewers are told, over real tables on moto, and the next GET says whether it is another."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from benchmarks.meter import Meter
from functions.revalidate import wiring
from functions.revalidate.dispatch import make_handler as make_stream_handler
from functions.revalidate.worker import make_handler as make_worker
from local_stack.seed import document
from tests.deployment import aws
from tests.functions.events import event, request
from tests.functions.test_api import Api, admin, anonymous  # noqa: F401 - fixtures
from tests.functions.test_dashboard_session import OPEN, Board, meter  # noqa: F401 - fixtures
from tests.functions.test_gateway import Gateway, gateway_over
from tests.functions.test_revalidation import Context, delayed
from tests.functions.test_shown_dashboards import Scene, scene  # noqa: F401 - fixtures
from tests.servers.management import ManagementServer
from tidegate import tables
from tidegate.adapters.aws.revalidation_queue import read_task
from tidegate.adapters.dynamodb.saved_documents import read_saved
from tidegate.domain.revocations import SavedDocument
from tidegate.usecases.limits.message_budget import MessageBudget


@pytest.fixture
def board(deployed: Mapping[str, str]) -> Board:
    return Board(deployed)


@pytest.fixture
def gateway(deployed: Mapping[str, str], management: ManagementServer) -> Iterator[Gateway]:
    yield gateway_over(deployed, management)


def watch(gateway: Gateway, board: Board, connection_id: str, by: Api | None = None) -> None:
    gateway.open(connection_id)
    gateway.say(connection_id, board.subscribe(board.session(by)["token"]))


def save(board: Board, title: str, sources: Any = None) -> int:
    """Save the board under another title. Returns the revision."""
    path = f"/api/dashboards/{board.id}"
    revision = board.api.ok("GET", path)["revision"]
    saved = board.api.ok("PUT", path, document(title, sources or board.sources), if_match=str(revision))
    return int(saved["revision"])


class Pushed:
    """Calls the stream's function with what changed in the access table, as the mapping does, and then the worker."""

    def __init__(self, gateway: Gateway) -> None:
        self._env = gateway.env
        self._client = aws(gateway.env["AWS_ENDPOINT_URL"], "dynamodb")
        self._stream = make_stream_handler(wiring.dispatch_services(gateway.env))
        self._work = make_worker(wiring.revalidate_services(gateway.env))
        self._was = self._images()
        self.records: list[dict[str, Any]] = []

    def _images(self) -> dict[str, Any]:
        items = self._client.scan(TableName=self._env[tables.ACCESS.variable], ConsistentRead=True)["Items"]
        return {item["key"]["S"]: item for item in items}

    def noticed(self) -> None:
        """Notice what changed since the last time: one record for each item."""
        now, was = self._images(), self._was
        changed = [
            key for key in now if key in was and was[key] != now[key] and key.startswith(tables.DASHBOARD_ACCESS)
        ]
        for key in changed:
            record = event("dynamodb_stream")["Records"][0] | {"eventName": "MODIFY"}
            record["dynamodb"] |= {"Keys": {"key": {"S": key}}, "OldImage": was[key], "NewImage": now[key]}
            record["dynamodb"] |= {"SequenceNumber": str(len(self.records))}
            self.records.append(record)
        self._was = now

    def push(self) -> list[dict[str, Any]]:
        """Returns the tasks that are queued, and takes them out."""
        records, self.records = self.records, []
        assert self._stream({"Records": records}, None) == {"batchItemFailures": []}
        queue, found = aws(self._env["AWS_ENDPOINT_URL"], "sqs"), []
        url = self._env["REVALIDATION_QUEUE_URL"]
        while messages := queue.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages"):
            found += [json.loads(message["Body"]) for message in messages]
            for message in messages:
                queue.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
        return found

    def work(self, task: Mapping[str, Any]) -> None:
        record = {"messageId": "m1", "body": json.dumps(task)}
        assert self._work({"Records": [record]}, Context()) == {"batchItemFailures": []}


def revisions(gateway: Gateway, connection_id: str) -> list[int]:
    return [frame["revision"] for frame in gateway.frames(connection_id) if frame["type"] == "document"]


# --- what is told -------------------------------------------------------------------------------------------


def test_a_save_is_told_once_for_each_connection(gateway: Gateway, board: Board) -> None:
    watch(gateway, board, "c1=")
    watch(gateway, board, "c2=", board.api)
    pushed = Pushed(gateway)
    revision = save(board, "Another")
    pushed.noticed()
    (task,) = pushed.push()
    assert (task["kind"], task["target"], task["revision"]) == ("document", board.id, revision)
    pushed.work(task)
    assert revisions(gateway, "c1=") == revisions(gateway, "c2=") == [revision]
    (frame,) = (frame for frame in gateway.frames("c1=") if frame["type"] == "document")
    assert frame.keys() == {"type", "dashboardId", "revision", "timestamp"} and frame["dashboardId"] == board.id
    assert delayed(gateway.env) == 0


def test_of_saves_in_a_row_the_last_is_told(gateway: Gateway, board: Board) -> None:
    watch(gateway, board, "c1=")
    pushed = Pushed(gateway)
    for number in range(3):
        revision = save(board, f"Title {number}")
        pushed.noticed()
    assert len(pushed.records) == 3
    (task,) = pushed.push()
    pushed.work(task | {"revision": revision - 1})
    assert revisions(gateway, "c1=") == [], "the task of the last one does it"
    pushed.work(task)
    assert revisions(gateway, "c1=") == [revision]


@pytest.mark.parametrize("what", ["visibility", "share-token:rotate", "acl", "deleted"])
def test_what_leaves_the_document_alone_is_no_save(gateway: Gateway, board: Board, what: str) -> None:
    pushed, path = Pushed(gateway), f"/api/dashboards/{board.id}"
    match what:
        case "visibility":
            board.api.ok("PUT", f"{path}/visibility", {"visibility": "link"})
        case "acl":
            board.api.ok("POST", "/api/users", {"email": "m@x.example", "role": "viewer", "password": "Long-enough-1"})
            board.api.ok("PUT", f"{path}/acl", {"email": "m@x.example", "level": "viewer"})
        case "deleted":
            board.api.ok("DELETE", path)
        case _:
            board.api.ok("POST", f"{path}/{what}")
    pushed.noticed()
    assert len(pushed.records) == 1 and pushed.push() == []


def test_whom_the_save_ends_is_not_told(gateway: Gateway, board: Board) -> None:
    """The viewer watched only what is removed."""
    watch(gateway, board, "c1=")
    gateway.open("c2=")
    asked = board.subscribe(board.session()["token"], ["t0"])
    gateway.say("c2=", asked)
    pushed = Pushed(gateway)
    revision = save(board, "T", board.sources[1:])
    pushed.noticed()
    (task,) = pushed.push()
    pushed.work(task)
    pushed.work({"kind": "dashboard", "target": board.id})
    pushed.work(task)
    assert revisions(gateway, "c2=") == []
    assert [frame["type"] for frame in gateway.frames("c2=")][-2:] == ["error", "status"]
    assert revisions(gateway, "c1=") == [revision, revision], "a task that is carried out twice repeats the revision"


def test_a_record_that_cannot_be_read_holds_up_no_other(gateway: Gateway, board: Board) -> None:
    pushed = Pushed(gateway)
    save(board, "Another")
    pushed.noticed()
    (record,) = pushed.records
    broken = record | {"dynamodb": {key: value for key, value in record["dynamodb"].items() if key != "OldImage"}}
    pushed.records = [broken, record]
    assert len(pushed.push()) == 1


def test_a_task_reads_as_it_was_queued(gateway: Gateway) -> None:
    task = read_task(json.dumps({"kind": "document", "target": "d", "sinceMs": 5, "revision": 7, "viewers": ["a="]}))
    services = wiring.dispatch_services(gateway.env)
    services.tasks.queue(task)
    (message,) = aws(gateway.env["AWS_ENDPOINT_URL"], "sqs").receive_message(
        QueueUrl=gateway.env["REVALIDATION_QUEUE_URL"]
    )["Messages"]
    assert read_task(message["Body"]) == task and (task.revision, task.after, task.viewers) == (7, "", ("a=",))


@pytest.mark.parametrize("change", [{}, {"NewImage": {}}, {"OldImage": {"key": {"S": "dash#d"}}}, {"NewImage": 1}])
def test_what_is_no_record_of_ours_is_said_to_be_none(change: Mapping[str, Any]) -> None:
    with pytest.raises(ValueError):
        read_saved({"dynamodb": {"Keys": {"key": {"S": "dash#d"}}, **change}})


def test_a_record_says_what_was_saved_and_when() -> None:
    old = {"key": {"S": "dash#d"}, "revision": {"N": "1"}}
    change = {"OldImage": old, "NewImage": old | {"revision": {"N": "2"}}, "ApproximateCreationDateTime": 1.8e9}
    assert read_saved({"dynamodb": change}) == SavedDocument("d", 2, 1_800_000_000_000)


# --- entity tags --------------------------------------------------------------------------------------------


def asked(by: Api, path: str, tag: str | None = None) -> tuple[int, str, Mapping[str, str]]:
    """Status, body and headers of a GET with this `If-None-Match`."""
    sent = dict(by.headers) | ({"if-none-match": tag} if tag else {})
    sent |= {"authorization": f"Bearer {by.token}"} if by.token else {}
    answer = by.handler(request("GET", path, **sent), None)
    headers = {name.lower(): value for name, value in answer["headers"].items()}
    return answer["statusCode"], answer.get("body") or "", headers


def test_the_second_get_is_not_modified(scene: Scene) -> None:  # noqa: F811
    shared = scene.share("link")
    for by, path in (
        (scene.viewer, scene.path),
        (scene.editor, scene.path),
        (scene.owner, scene.path),
        (scene.anonymous, f"/api/share/{shared['shareToken']}"),
    ):
        status, body, headers = asked(by, path)
        tag = headers["etag"]
        assert status == 200 and tag.startswith('"1-') and tag.endswith('"')
        for sent in (tag, f"W/{tag}", f'"other", {tag}', "*"):
            status, body, again = asked(by, path, sent)
            assert (status, body, again["etag"]) == (304, "", tag), sent
            assert again["vary"] == headers["vary"] == "Authorization"
            assert again["cache-control"] == headers["cache-control"]
        for sent in ('"1"', tag.strip('"'), '"other"', tag[:-2] + '"'):
            assert asked(by, path, sent)[0] == 200, sent


def test_a_tag_is_of_what_the_caller_is_shown(scene: Scene) -> None:  # noqa: F811
    people = {"viewer": scene.viewer, "editor": scene.editor, "manager": scene.manager}

    def tags() -> dict[str, str]:
        return {name: asked(by, scene.path)[2]["etag"] for name, by in people.items()}

    before = tags()
    assert len(set(before.values())) == 3
    scene.share("link")
    shared = tags()
    assert all(before[name] != shared[name] for name in people), "everybody is shown the visibility"
    scene.owner.ok("POST", f"{scene.path}/share-token:rotate")
    rotated = tags()
    assert [name for name in people if rotated[name] != shared[name]] == ["manager"]
    body = {"document": scene.document | {"settings": {"style": "of editors"}}}
    scene.owner.ok("PUT", scene.path, body, if_match="1")
    assert all(tag.startswith('"2-') for tag in tags().values())


def test_who_may_keep_an_answer(scene: Scene) -> None:  # noqa: F811
    """The browser of who is not shown a share token, and it asks each time."""
    kept = {
        name: asked(getattr(scene, name), scene.path)[2]["cache-control"] for name in ("viewer", "editor", "manager")
    }
    assert kept == {"viewer": "private, no-cache", "editor": "private, no-cache", "manager": "no-store"}


@pytest.mark.parametrize(
    "lose",
    [
        lambda of, ids: of.owner.ok("DELETE", f"{of.path}/acl/{ids['acl-viewer@x.example']}"),
        lambda of, ids: of.admin.ok("PATCH", f"/api/users/{ids['acl-viewer@x.example']}", {"active": False}),
        lambda of, _ids: of.owner.ok("DELETE", of.path),
    ],
)
def test_the_right_is_asked_before_a_304(scene: Scene, lose: Callable[[Scene, Any], object]) -> None:  # noqa: F811
    tag = asked(scene.viewer, scene.path)[2]["etag"]
    ids = {user["email"]: user["id"] for user in scene.admin.ok("GET", "/api/users?limit=100")["users"]}
    lose(scene, ids)
    for sent in (tag, "*"):
        status, _, headers = asked(scene.viewer, scene.path, sent)
        assert status in (401, 404) and "etag" not in headers and headers["cache-control"] == "no-store"


def test_a_save_takes_the_tag_as_it_came(scene: Scene) -> None:  # noqa: F811
    tag = asked(scene.owner, scene.path)[2]["etag"]
    body = {"document": scene.document | {"title": "Another"}}
    assert scene.owner.ok("PUT", scene.path, body, if_match=tag)["revision"] == 2
    assert scene.owner("PUT", scene.path, body, if_match=tag)[0] == 409
    assert scene.owner("PUT", scene.path, body, if_match='"2-x"')[0] == 400


def test_the_answer_to_a_change_has_the_tag_of_the_next_get(scene: Scene) -> None:  # noqa: F811
    sent = {"authorization": f"Bearer {scene.owner.token}", "if_match": "1"}
    body = {"document": scene.document | {"title": "Another"}}
    changed = scene.owner.handler(request("PUT", scene.path, body, **sent), None)
    assert changed["headers"]["etag"] == asked(scene.owner, scene.path)[2]["etag"]


# --- what it costs ------------------------------------------------------------------------------------------


def test_what_a_save_and_each_told_viewer_cost(
    gateway: Gateway,
    board: Board,
    meter: Meter,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The rows of performance.md."""
    monkeypatch.setattr(MessageBudget, "spend", lambda *_: None)
    pushed, path = Pushed(gateway), f"/api/dashboards/{board.id}"
    save(board, "Warm")
    pushed.noticed()
    meter.taken()
    board.api.ok("PUT", path, document("Again", board.sources), if_match="2")
    saving = meter.taken().of_dynamodb
    pushed.noticed()
    (task,) = pushed.push()
    meter.taken()
    pushed.work(task)
    nobody = meter.taken().of_dynamodb
    for number in range(4):
        watch(gateway, board, f"c{number}=")
    meter.taken()
    pushed.work(task)
    guests = meter.taken().of_dynamodb
    assert all(revisions(gateway, f"c{number}=") == [3] for number in range(4))
    tag = asked(board.guest, path)[2]["etag"]
    meter.taken()
    assert asked(board.guest, path)[0] == 200
    whole = meter.taken().of_dynamodb
    assert asked(board.guest, path, tag)[0] == 304
    assert (saving, nobody, guests, whole, meter.taken().of_dynamodb) == COSTS
    assert len(OPEN) == 10


#: Calls, read units and write units: of the save; of the task where nobody watches; of the task with four guests of ten
#: datasources each; of a GET, and of one that is answered with 304.
COSTS = ((7, 5, 11), (8, 8, 0), (10, 10, 0), (2, 2, 0), (2, 2, 0))
