"""Many at the same time on a real table API: subscribing and revoking, and refusals that the audit log counts."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from local_stack.config import Config
from tests.containers.gateway import DASHBOARD, DATASOURCE, GatewayContainer
from tests.doubles.platform import MemoryObserver, MemorySender, PlainKeys
from tidegate import tables
from tidegate.adapters.dynamodb.access import put_dashboard, put_user
from tidegate.adapters.dynamodb.audit import DynamoAudit
from tidegate.domain.audit import WINDOW_MS, AuditEvent, AuditQuery, place_of
from tidegate.domain.limits import FailureMode
from tidegate.domain.subscriptions import Connection
from tidegate.errors import TidegateError
from tidegate.providers.control_plane import ControlPlaneProviders
from tidegate.usecases.gateway.authorizer import LocalAuthorizer
from tidegate.usecases.gateway.end_connection import EndConnection
from tidegate.usecases.gateway.subscribe import Subscribe, SubscribePolicy
from tidegate.usecases.limits.connection_quota import ConnectionQuota
from tidegate.usecases.limits.rate_limits import RateLimits
from tidegate.usecases.revocation.evaluate import Evaluate
from tidegate.usecases.revocation.terminate_subscriptions import TerminateSubscriptions

VIEWERS, ROTATIONS = 200, 20


class RealTables(GatewayContainer):
    """The scene of the use-case tests, its stores the emulator's tables."""

    def __init__(self, control_plane: ControlPlaneProviders) -> None:
        super().__init__()
        self.control_plane, self.platform, self.observer = control_plane, MemorySender(), MemoryObserver()
        slots = ConnectionQuota(
            store=control_plane.caps,
            failure_mode=FailureMode.CLOSED,
            timeout_ms=20_000,
            clock=control_plane.clock,
            observer=self.observer,
        )
        # Rates and quota share a deadline, so they share a clock too.
        rates = RateLimits(
            store=self.rate_store,
            keys=PlainKeys(),
            namespace="t",
            failure_mode=FailureMode.CLOSED,
            timeout_ms=20_000,
            clock=control_plane.clock,
            ids=control_plane.ids,
            observer=self.observer,
        )
        end = EndConnection(
            connections=control_plane.connections,
            subscriptions=control_plane.subscriptions,
            quota=slots,
            sender=self.platform,
            observer=self.observer,
        )
        self.real_subscribe = Subscribe(
            policy=SubscribePolicy(50, 1000, 10**6, 10**6),
            tokens=self.tokens,
            rates=rates,
            authorizer=LocalAuthorizer(
                access=control_plane.access,
                profiles=self.profiles,  # type: ignore[arg-type]
                policy=self.authorizer._policy,
            ),
            quota=slots,
            upstreams=self.upstreams,
            connections=control_plane.connections,
            subscriptions=control_plane.subscriptions,
            streams=control_plane.streams,
            wake_schedule=lambda: None,
            clock=self.clock,
            ids=control_plane.ids,
            observer=self.observer,
        )
        self.evaluate = Evaluate(access=control_plane.access, clock=self.clock, observer=self.observer)
        self.terminate = TerminateSubscriptions(
            subscriptions=control_plane.subscriptions,
            connections=control_plane.connections,
            sender=self.platform,
            end_connection=end,
            clock=control_plane.clock,
            ids=control_plane.ids,
            observer=self.observer,
        )

    def write_access(self) -> None:
        access = self.access.dashboards[DASHBOARD]
        intents = {DATASOURCE: self.access.intents[(DASHBOARD, DATASOURCE)]}
        table = self.control_plane.env["TIDEGATE_TABLE_ACCESS"]
        owner = self.access.users[access.owner_id]
        self.control_plane.db.transact([*put_dashboard(table, access, intents), put_user(table, owner)])

    def run_pass(self) -> None:
        rows = list(self.control_plane.subscriptions.of_dashboard(DASHBOARD))
        self.terminate(self.evaluate(rows), self.control_plane.clock.monotonic() + 60)


@pytest.fixture
def scene(stack: Mapping[str, Any], config: Config) -> RealTables:
    return RealTables(
        ControlPlaneProviders({**config.aws_environment(), **stack["tables"], "TIDEGATE_ENV": "development"})
    )


def test_no_stale_row_and_no_lost_slot(scene: RealTables) -> None:
    scene.write_access()

    def arrive(number: int) -> bool:
        connection_id = f"race{number}"
        scene.control_plane.connections.open(Connection(connection_id, "ip", int(scene.clock.now())))
        try:
            scene.real_subscribe(connection_id, DASHBOARD, DATASOURCE, scene.token())
        except TidegateError:
            return False
        return True

    def rotate() -> None:
        for _ in range(ROTATIONS):
            scene.revoke()
            scene.write_access()
            scene.run_pass()

    with ThreadPoolExecutor(12) as pool:
        arrivals = [pool.submit(arrive, number) for number in range(VIEWERS // 2)]
        rotations = pool.submit(rotate)
        arrivals += [pool.submit(arrive, number) for number in range(VIEWERS // 2, VIEWERS)]
        outcomes = [arrival.result() for arrival in arrivals]
        rotations.result()
    assert len(outcomes) == VIEWERS and any(outcomes)
    version = scene.access.dashboards[DASHBOARD].share_version
    rows = list(scene.control_plane.subscriptions.of_dashboard(DASHBOARD))
    stale = [row for row in rows if row.claim.principal.share_version != version]
    assert version == 1 + ROTATIONS and not stale, "no full revalidation after the last one may be needed"
    caps = [taken for page in scene.control_plane.caps.scan(0, 1) for taken in page.items]
    held = {holder for cap, _shard, holder in caps if cap == f"dash#{DASHBOARD}"}
    open_connections = {row.connection_id for page in scene.control_plane.connections.scan(0, 1) for row in page.items}
    assert {row.key.connection_id for row in rows} <= held <= open_connections


def test_refusals_at_the_same_time_are_one_row_with_their_number(scene: RealTables) -> None:
    control_plane, observer = scene.control_plane, MemoryObserver()
    audit = DynamoAudit(control_plane.db, control_plane.table(tables.AUDIT), control_plane.ids, observer)
    now_ms = int(control_plane.clock.now() * 1000)
    refusal = AuditEvent("auth.login.counted", None, "user", None, now_ms)

    def refuse(number: int) -> None:
        audit.record(replace(refusal, at_ms=now_ms - number % 2 * WINDOW_MS))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(refuse, range(200)))
    assert not observer.counts
    query = AuditQuery(1, 0, now_ms + 1, action=refusal.action)
    newer = audit.page(query)
    assert newer.cursor is not None
    older = audit.page(replace(query, before=place_of(newer.cursor)))
    assert [row.count for row in (*newer.items, *older.items)] == [100, 100] and older.cursor is None
    assert {row.event.action for row in audit.page(AuditQuery(200, 0, now_ms + 1)).items} >= {refusal.action}
