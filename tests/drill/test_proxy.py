"""The proxy fails what it is told to, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import pytest

from fixtures.faulty_aws import Fault, FaultyAws
from tidegate import tables
from tidegate.adapters.dynamodb.client import DynamoDb, delete_action
from tidegate.errors import Unavailable
from tidegate.providers.stores import StoreProviders

KEY = {"key": "k"}


@pytest.fixture
def proxy(deployed: Mapping[str, str]) -> Iterator[FaultyAws]:
    proxy = FaultyAws(deployed["AWS_ENDPOINT_URL"])
    yield proxy
    proxy.close()


@pytest.fixture
def db(proxy: FaultyAws, deployed: Mapping[str, str]) -> DynamoDb:
    return StoreProviders({**deployed, "AWS_ENDPOINT_URL_DYNAMODB": proxy.url}).db


def test_one_operation_fails_and_the_others_go_on(proxy: FaultyAws, db: DynamoDb, deployed: Mapping[str, str]) -> None:
    table, other = deployed[tables.LIMITERS.variable], deployed[tables.ACCESS.variable]
    proxy.fail(Fault.DENIED, table, "GetItem")
    with pytest.raises(Unavailable):
        db.get(table, KEY)
    db.put(table, KEY)
    assert db.get(other, KEY) is None
    assert proxy.failed == {("GetItem", table): 1}
    proxy.heal()
    assert db.get(table, KEY) == KEY


NAMING: Mapping[str, Callable[[DynamoDb, str, str], object]] = {
    "a batch read": lambda db, table, _other: db.get_many(table, [KEY, {"key": "l"}]),
    "a batch write": lambda db, table, _other: db.delete_many(table, [KEY]),
    "a transaction": lambda db, table, other: db.transact([delete_action(other, KEY), delete_action(table, KEY)]),
}


@pytest.mark.parametrize("ask", NAMING.values(), ids=NAMING)
def test_a_request_that_names_several_tables_meets_the_fault_of_any(
    proxy: FaultyAws, db: DynamoDb, deployed: Mapping[str, str], ask: Callable[[DynamoDb, str, str], object]
) -> None:
    table, other = deployed[tables.LIMITERS.variable], deployed[tables.ACCESS.variable]
    proxy.fail(Fault.NO_TABLE, table)
    with pytest.raises(Unavailable) as unavailable:
        ask(db, table, other)
    assert unavailable.value.code == "store_missing"
    proxy.heal()
    ask(db, table, other)
