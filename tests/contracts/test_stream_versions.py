"""The version of an allowed topic's streams, in several copies: one item would be read for every device message."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count
from typing import Any

import pytest

from tidegate import tables
from tidegate.adapters.dynamodb.client import DynamoDb, Item
from tidegate.adapters.dynamodb.streams import VERSION_COPIES, DynamoStreams
from tidegate.domain.subscriptions import Stream
from tidegate.errors import Unavailable
from tidegate.providers.stores import StoreProviders


class Container:
    """The streams table, as processes see it that read different copies."""

    def __init__(self, env: Mapping[str, str]) -> None:
        providers = StoreProviders(env)
        self.db: DynamoDb = providers.db
        self.table = providers.table(tables.STREAMS)
        self.readers = [DynamoStreams(self.db, self.table, copy) for copy in range(VERSION_COPIES)]

    def versions(self, allowed_topic: str = "a/#") -> list[int]:
        return [reader.version_of(allowed_topic) for reader in self.readers]

    def version_keys(self) -> set[str]:
        items = [item for page, _ in self.db.scan(self.table, 0, 1) for item in page]
        return {str(item["source"]) for item in items if item["stream_key"] == "!version"}


@pytest.fixture
def container(deployed: Mapping[str, str]) -> Container:
    return Container(deployed)


def stream(key: str = "k", last_requested_at: int = 10) -> Stream:
    return Stream(key, "mqtt", "json", "a/#", "a/+", last_requested_at=last_requested_at)


def test_whichever_copy_is_read_a_new_stream_is_found(container: Container) -> None:
    container.readers[1].touch(stream())
    first = [reader.of_source("a/#") for reader in container.readers]
    assert [before.version for before in first] == container.versions()
    container.readers[2].touch(stream("k2"))
    for reader, before in zip(container.readers, first, strict=True):
        now = reader.of_source("a/#")
        assert list(before.streams) == [stream()] and reader.version_of("a/#") == now.version > before.version > 0
        assert {stream.stream_key for stream in now.streams} == {"k", "k2"}


def test_each_copy_is_in_a_partition_of_its_own(container: Container) -> None:
    container.readers[0].touch(stream())
    assert len(container.version_keys()) == VERSION_COPIES
    assert DynamoStreams(container.db, container.table, 0).version_of("b/#") == 0


def test_the_relays_streams_have_one_version(container: Container) -> None:
    for reader in container.readers:
        reader.touch(Stream(f"k{reader.copy}", "sse", "json", None, None, last_requested_at=10, intent={"url": "u"}))
    assert container.version_keys() == {"relay"}
    assert {reader.version_of(None) for reader in container.readers} == {VERSION_COPIES}


def test_processes_read_different_copies(container: Container) -> None:
    assert {DynamoStreams(container.db, container.table).copy for _ in range(200)} == set(range(VERSION_COPIES))


def test_a_list_is_never_older_than_the_version_that_it_is_kept_for(
    container: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, other, query = container.readers[0], container.readers[1], container.db.query

    def meanwhile(*args: Any, **options: Any) -> Any:
        found = list(query(*args, **options))
        other.touch(stream("meanwhile"))
        return found

    monkeypatch.setattr(container.db, "query", meanwhile)
    listed = reader.of_source("a/#")
    assert not listed.streams and reader.version_of("a/#") > listed.version, "so it is read again"


@pytest.mark.parametrize("moved", range(VERSION_COPIES))
def test_a_subscriber_that_dies_between_copies_is_made_up_for(
    container: Container, moved: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    update, moves, before = container.db.update, count(), container.versions()

    def dies(table: str, key: Item, *args: Any, **options: Any) -> Any:
        if key["stream_key"] == "!version" and next(moves) == moved:
            raise Unavailable("the process died")
        return update(table, key, *args, **options)

    monkeypatch.setattr(container.db, "update", dies)
    with pytest.raises(Unavailable):
        container.readers[0].touch(stream())
    assert container.readers[0].touch(stream(last_requested_at=20)) == stream(last_requested_at=20)
    moved_all = zip(container.versions(), before, strict=True)
    assert all(now > then for now, then in moved_all), "the next subscriber moves every copy"
