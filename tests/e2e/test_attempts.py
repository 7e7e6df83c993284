"""Attempts and sign-outs at the same time, on a real table API: conditions and writes are one step there."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from time import monotonic
from typing import Any

import pytest

from local_stack.config import Config
from tidegate import tables
from tidegate.adapters.dynamodb.attempts import DynamoAttempts
from tidegate.adapters.dynamodb.users import DynamoUsers
from tidegate.domain.access import Role
from tidegate.domain.attempts import AttemptPolicy
from tidegate.domain.users import User
from tidegate.ports.control_plane import UserWrite
from tidegate.providers.control_plane import ControlPlaneProviders

POLICY = AttemptPolicy(limit=5, window_s=300, lock_s=300)
AT_ONCE = 14


@pytest.fixture
def control_plane(stack: Mapping[str, Any], config: Config) -> ControlPlaneProviders:
    return ControlPlaneProviders({**config.aws_environment(), **stack["tables"], "TIDEGATE_ENV": "development"})


def test_of_fourteen_attempts_at_once_five_are_counted(control_plane: ControlPlaneProviders) -> None:
    store = DynamoAttempts(control_plane.db, control_plane.table(tables.LIMITERS))
    deadline = monotonic() + 60

    def attempt(number: int, now_ms: int) -> bool:
        return store.begin("e2e", f"{now_ms}-{number}", POLICY, now_ms, deadline).allowed

    with ThreadPoolExecutor(AT_ONCE) as threads:
        for window in range(3):  # each begins anew, and many try to begin it
            now_ms = 1 + window * POLICY.window_s * 1000
            allowed = list(threads.map(lambda number, now_ms=now_ms: attempt(number, now_ms), range(AT_ONCE)))
            assert allowed.count(True) == POLICY.limit
        right = [f"{now_ms}-{number}" for number in range(AT_ONCE) if allowed[number]][:2]
        # Each is given back three times at once.
        list(threads.map(lambda attempt_id: store.right("e2e", attempt_id, deadline), right * 3))
        again = list(threads.map(lambda number: attempt(100 + number, now_ms), range(AT_ONCE)))
        assert again.count(True) == len(right)


def test_logins_that_are_ended_at_once_all_stay_ended(control_plane: ControlPlaneProviders) -> None:
    users = DynamoUsers(
        control_plane.db,
        control_plane.revocations,
        table=control_plane.table(tables.USERS),
        access_table=control_plane.table(tables.ACCESS),
    )
    user = User("e2e-ended", "ended@x.example", Role.VIEWER, True, 1, "hash")
    users.write(UserWrite(None, user), 0)
    notes = {f"100.login{number}" for number in range(AT_ONCE)}
    with ThreadPoolExecutor(AT_ONCE) as threads:
        list(threads.map(lambda note: users.end_login(user.user_id, note, frozenset()), sorted(notes) * 2))
    read = users.get(user.user_id)
    assert read is not None and read.ended_logins == notes and read.row_version == 1 + 2 * AT_ONCE
