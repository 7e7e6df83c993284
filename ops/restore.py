"""Bring dashboards back from a table that DynamoDB restored beside the stage's own; `make restore`.

A backup gives back what people wrote, not who may see it. A dashboard that is gone comes back private, with a new link
and without members. One that is there keeps its rights, and gets its document only when it is named.

Invariant of this file: no viewer may see more afterwards than before. Each dashboard is written as the API writes it,
in one transaction with its access item and its event, and its share version only grows. So neither a link nor a session
token from before the backup is valid again.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace

import botocore.exceptions

from infra.stage import StageError
from ops import operator_log
from ops.deploy import stage_environment
from ops.deploy_errors import DeployError, any_stage
from tidegate import tables
from tidegate.adapters.dynamodb.users import DynamoUsers
from tidegate.domain.access import DashboardAccess, Visibility
from tidegate.domain.audit import AuditEvent
from tidegate.domain.dashboards import Dashboard, access_of
from tidegate.domain.documents import check_document
from tidegate.domain.emails import normalise_email
from tidegate.domain.intents import intent_hash
from tidegate.domain.revocations import Revocation, RevocationReason
from tidegate.domain.rights import may_own
from tidegate.errors import NotFound, TidegateError, Unavailable
from tidegate.ports.control_plane import DashboardWrite
from tidegate.providers.control_plane import ControlPlaneProviders
from tidegate.usecases.control_plane.from_what_stands import from_what_stands
from tidegate.usecases.control_plane.resolve_intents import Resolved

#: Dashboards that a list reads at a time.
_PAGE = 100
#: Datasources that a line names at most.
_LISTED = 5


@dataclass(frozen=True, slots=True)
class Line:
    """What becomes of a dashboard of the backup.

    Attributes:
        state: `there`, `would come back`, `back` or `refused`.
        text: what that means here, for people.
    """

    dashboard: str
    title: str
    state: str
    text: str


def brought_back(
    backup: Dashboard, live: Dashboard | None, access: DashboardAccess | None, *, owner_id: str, share_token: str
) -> Dashboard:
    """The dashboard as it shall be stored, with the document of the backup and the rights of now.

    Args:
        live: as it is stored now; None when it is gone.
        access: its access item now, which outlives it as a tombstone.
        owner_id: of one that is gone.
        share_token: a new one, for one that is gone.
    """
    if live is not None:
        return replace(live, document=backup.document, revision=live.revision + 1, row_version=live.row_version + 1)
    return replace(
        backup,
        owner_id=owner_id,
        visibility=Visibility.PRIVATE,
        share_token=share_token,
        share_version=max(backup.share_version, access.share_version if access else 0) + 1,
        acl={},
        # A page that has an older document open must not take this one for it.
        revision=max(backup.revision, access.revision if access else 0) + 1,
        row_version=1,
        withdrawal=None,
    )


class Restore:
    """Brings dashboards of one restored table back into the stage whose tables `env` names."""

    def __init__(self, env: Mapping[str, str], source: str, owner_email: str = "") -> None:
        """
        Args:
            source: the restored table's name.
            owner_email: of whom a dashboard gets whose owner is no active user any more; empty for nobody.
        """
        stage = ControlPlaneProviders(env)
        self._backup = ControlPlaneProviders({**env, tables.DASHBOARDS.variable: source}).dashboards
        self._stage = stage
        users = DynamoUsers(
            stage.db,
            stage.revocations,
            table=stage.table(tables.USERS),
            access_table=stage.table(tables.ACCESS),
        )
        self._audit = operator_log.audit(stage, operator_log.observer())
        owner = users.by_email(normalise_email(owner_email)) if owner_email else None
        if owner_email and (owner is None or not may_own(owner)):
            raise DeployError(f"OWNER={owner_email[:60]!r} is no active editor or administrator of the stage.")
        self._owner_id = owner.user_id if owner else None

    def ids(self) -> Iterator[str]:
        """Every dashboard of the restored table. Raises `Unavailable`."""
        cursor = None
        while True:
            page = self._backup.all(_PAGE, cursor)
            yield from (summary.dashboard_id for summary in page.items)
            cursor = page.cursor
            if cursor is None:
                return

    def run(self, ids: Iterable[str], *, named: bool, write: bool) -> Iterator[Line]:
        """Bring them back, or say what would be done. Raises `Unavailable`.

        Args:
            named: whether somebody named these ids. Then those that are there get their document back too.
            write: False changes nothing.
        """
        for dashboard_id in ids:
            backup = self._backup.get(dashboard_id)
            if backup is None:
                yield Line(dashboard_id, "", "refused", "the restored table has no such dashboard")
                continue
            try:
                state, text = self._one(backup, named=named, write=write)
            except Unavailable:
                raise
            except TidegateError as error:
                state, text = "refused", error.message
            yield Line(dashboard_id, backup.title, state, text)

    @from_what_stands
    def _one(self, backup: Dashboard, *, named: bool, write: bool) -> tuple[str, str]:
        live = self._stage.dashboards.get(backup.dashboard_id)
        if live is not None and live.document == backup.document:
            return "there", "as in the backup"
        if live is not None and not named:
            return "there", "has another document; name it to replace that"
        after = self._after(backup, live)
        resolved = self._stage.resolve(after.dashboard_id, after.document)
        text = "with the rights of now" if live is not None else "private, without members"
        if resolved.problems:
            text += f"; without a source: {', '.join(sorted(resolved.problems)[:_LISTED])}"
        if not write:
            return "would come back", text
        self._write(live, after, resolved)
        return "back", text

    def _after(self, backup: Dashboard, live: Dashboard | None) -> Dashboard:
        """Raises `NotFound` when nobody can own it, and `InvalidDocument`."""
        seen = self._stage.access.read([backup.dashboard_id], [backup.owner_id])
        user = seen.users.get(backup.owner_id)
        owner_id = backup.owner_id if user is not None and user.active else self._owner_id
        if live is None and owner_id is None:
            raise NotFound("its owner is no active user any more; give OWNER=<e-mail>")
        return brought_back(
            replace(backup, document=check_document(backup.document)),
            live,
            seen.dashboards.get(backup.dashboard_id),
            owner_id=owner_id or "",
            share_token=self._stage.ids.new_share_token(),
        )

    def _write(self, live: Dashboard | None, after: Dashboard, resolved: Resolved) -> None:
        """In one transaction, as the API does. Raises `ChangedMeanwhile`, `TooManyAtOnce`, `Unavailable`."""
        before = self._stage.dashboards.intents(after.dashboard_id) if live is not None else {}
        revoked = live is None or any(resolved.hashes.get(name) != intent_hash(each) for name, each in before.items())
        reason = RevocationReason.VISIBILITY_CHANGED if live is None else RevocationReason.DATASOURCES_CHANGED
        now_ms = int(self._stage.clock.now() * 1000)
        after = replace(after, updated_at_ms=now_ms)
        self._stage.dashboards.write(
            DashboardWrite(
                live,
                after,
                access_of(after, resolved.hashes),
                resolved.intents,
                intents_before=before,
                revocation=Revocation(reason, after.dashboard_id, after.share_version) if revoked else None,
                relies_on=after.owner_id if live is None else None,
            ),
            now_ms,
        )
        self._audit.record(
            AuditEvent(
                "dashboard.restored", None, "dashboard", after.dashboard_id, now_ms, {"revision": after.revision}
            )
        )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m ops.restore", description=__doc__)
    parser.add_argument("--stage", default="")
    parser.add_argument("--from", dest="source", default="", help="the table that DynamoDB restored")
    parser.add_argument("--dashboard", action="append", default=[], help="this one only, also when it is there")
    parser.add_argument("--owner", default="", help="e-mail: owns those whose owner is no active user any more")
    parser.add_argument("--write", action="store_true", help="do it; without, it is only shown")
    parser.add_argument("--json", action="store_true", help="one JSON object in a line for each dashboard")
    options = parser.parse_args(arguments)
    try:
        if not options.source:
            raise DeployError("FROM is missing: the name of the table that DynamoDB restored.")
        restore = Restore(stage_environment(any_stage(options.stage)), options.source, options.owner)
        chosen = options.dashboard or restore.ids()
        lines = restore.run(chosen, named=bool(options.dashboard), write=options.write)
        refused = [line for line in lines if _shown(line, as_json=options.json).state == "refused"]
        return 1 if refused else 0
    except (DeployError, StageError) as error:
        print(f"error: {error}", file=sys.stderr)
    except TidegateError as error:
        print(f"error: {error.message}; run the command again to go on", file=sys.stderr)
    except botocore.exceptions.BotoCoreError as error:
        print(f"error: AWS cannot be reached with the current credentials: {error}", file=sys.stderr)
    return 1


def _shown(line: Line, *, as_json: bool) -> Line:
    """Print it at once: a large table takes minutes."""
    told = f"  {line.dashboard:<21}  {line.state:<15}  {line.title[:30]:<30}  {line.text}"
    print(json.dumps(asdict(line)) if as_json else told, flush=True)
    return line


if __name__ == "__main__":
    sys.exit(main())
