from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from time import monotonic

import pytest

from tests.doubles.platform import MemoryObserver
from tests.servers.management import ManagementServer
from tests.settling import settle
from tidegate.adapters.aws.bulk_sender import parse_answer
from tidegate.adapters.aws.management_api import ManagementApi
from tidegate.adapters.aws.sigv4 import Credentials
from tidegate.ports.delivery import Delivery, OutboundMessage, SendResult


def api(server: ManagementServer) -> ManagementApi:
    return ManagementApi(
        server.url, region="eu-west-1", credentials=Credentials("AKID", "secret", "token"), observer=MemoryObserver()
    )


def open_files() -> set[tuple[int, int]]:
    """Which files are open, not how many: what other tests left is closed whenever it is collected."""
    files = set()
    for entry in Path("/dev/fd").iterdir():
        with suppress(OSError):  # closed meanwhile, as is the one that lists them
            files.add((int(entry.name), os.fstat(int(entry.name)).st_ino))
    return files


def outcomes(results: list[SendResult]) -> list[Delivery]:
    return [result.delivery for result in results]


def test_posts_reach_their_connections(management: ManagementServer) -> None:
    sender = api(management)
    posts = [OutboundMessage(f"c{number}=", f"body {number}".encode()) for number in range(300)]
    results = sender.post_many(posts)
    assert [result.post for result in results] == posts
    assert set(outcomes(list(results))) == {Delivery.DELIVERED}
    assert management.received == {f"c{number}=": [f"body {number}".encode()] for number in range(300)}
    opened = management.connections
    sender.post_many(posts)
    assert management.connections == opened, "sockets are kept between runs"


def test_every_status_has_its_meaning(management: ManagementServer) -> None:
    statuses = {"ok": 200, "gone": 410, "big": 413, "no": 403, "busy": 429, "down": 500}
    management.answer = lambda method, connection_id, nth: statuses[connection_id]
    results = api(management).post_many([OutboundMessage(connection_id, b"x") for connection_id in statuses])
    assert outcomes(list(results)) == [
        Delivery.DELIVERED,
        Delivery.GONE,
        Delivery.TOO_LARGE,
        Delivery.FORBIDDEN,
        Delivery.THROTTLED,
        Delivery.FAILED,
    ]
    tries = [connection_id for _, connection_id in management.requests]
    assert tries.count("busy") == tries.count("down") == 4 and tries.count("gone") == 1


def test_throttling_and_lost_connections_are_retried(management: ManagementServer) -> None:
    management.answer = lambda method, connection_id, nth: (429, None, 200)[min(nth, 3) - 1]
    results = api(management).post_many([OutboundMessage(f"c{number}", b"x") for number in range(20)])
    assert set(outcomes(list(results))) == {Delivery.DELIVERED}


def test_every_try_is_asked_for(management: ManagementServer) -> None:
    management.answer = lambda method, connection_id, nth: 429 if nth == 1 else 200
    asked: list[str] = []

    def once(post: OutboundMessage) -> bool:
        asked.append(post.connection_id)
        return asked.count(post.connection_id) == 1 and post.connection_id != "never"

    results = api(management).post_many([OutboundMessage("a", b"x"), OutboundMessage("never", b"x")], before_each=once)
    assert outcomes(list(results)) == [Delivery.WITHHELD, Delivery.WITHHELD]
    assert management.received == {} and ("POST", "never") not in management.requests


def test_a_deadline_ends_it(management: ManagementServer) -> None:
    management.answer = lambda method, connection_id, nth: 429
    results = api(management).post_many([OutboundMessage("a", b"x")], deadline=monotonic() + 0.01)
    assert outcomes(list(results))[0] in (Delivery.THROTTLED, Delivery.FAILED)


def test_what_is_kept_open_is_given_back(management: ManagementServer) -> None:
    before, sender = open_files(), api(management)
    for _ in range(3):
        assert set(outcomes(list(sender.post_many([OutboundMessage(f"c{number}", b"x") for number in range(40)])))) == {
            Delivery.DELIVERED
        }
        assert open_files() - before
        sender.end()
        sender.end()
    settle(lambda: not open_files() - before)  # the server's own ends follow


def test_nobody_there() -> None:
    sender = ManagementApi(
        "http://127.0.0.1:9/live", region="r", credentials=Credentials("a", "b"), observer=MemoryObserver()
    )
    assert sender.post("c", b"x") is Delivery.FAILED
    sender.close("c")


def test_looking_and_closing(management: ManagementServer) -> None:
    management.answer = lambda method, connection_id, nth: 410 if connection_id == "gone" else 200
    sender = api(management)
    assert sender.exists("here") and not sender.exists("gone")
    sender.close("here")
    sender.close("gone")
    assert management.requests[-2:] == [("DELETE", "here"), ("DELETE", "gone")]


def test_requests_are_signed(management: ManagementServer) -> None:
    api(management).post("c=", b"x")
    headers = management.headers[0]
    assert headers["authorization"].startswith("AWS4-HMAC-SHA256 Credential=AKID/")
    assert "/eu-west-1/execute-api/aws4_request" in headers["authorization"]
    assert headers["x-amz-security-token"] == "token"


WHOLE = [
    (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", (200, True)),
    (b"HTTP/1.1 410 Gone\r\nConnection: close\r\ncontent-length:0\r\n\r\n", (410, False)),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", (200, True)),
    (b"HTTP/1.1 204 No Content\r\n\r\n", (204, True)),
    (b"HTTP/1.1 200 OK\r\nDate: now\r\nContent-Length: 0\r\nConnection: keep-alive\r\n\r\n", (200, True)),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", (200, True)),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: Close\r\n\r\n", (200, False)),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Note: closed\r\n\r\n", (200, True)),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nTransfer-Encoding: Chunked\r\n\r\n0\r\n\r\n", (200, True)),
    (b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", (200, False)),
    (b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n", (500, True)),
]


@pytest.mark.parametrize(("answer", "expected"), WHOLE)
def test_answers_are_read_whole_however_they_arrive(answer: bytes, expected: tuple[int, bool]) -> None:
    for cut in range(len(answer)):
        assert parse_answer(answer[:cut]) is None
    assert parse_answer(answer + b"rest") == (*expected, len(answer))


@pytest.mark.parametrize("bad", [b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.1 x\r\n\r\n", b"x" * 70_000])
def test_what_is_no_answer_ends_the_socket(bad: bytes) -> None:
    with pytest.raises(ConnectionError):
        parse_answer(bad)
