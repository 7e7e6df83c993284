"""Read the audit log, the newest rows first, page by page."""

from __future__ import annotations

from tidegate.domain.audit import AuditQuery, AuditRow, moment_ms, place_of, span
from tidegate.domain.rights import check_admin
from tidegate.domain.users import User
from tidegate.ports.control_plane import AuditLog, Page
from tidegate.ports.runtime import Clock


class ReadAudit:
    """The use case behind `GET /operations/audit`."""

    def __init__(self, *, audit: AuditLog, clock: Clock) -> None:
        self._audit = audit
        self._clock = clock

    def __call__(
        self,
        actor: User,
        *,
        limit: int,
        cursor: str | None = None,
        action: str | None = None,
        actor_id: str | None = None,
        target_id: str | None = None,
        begin: str | None = None,
        end: str | None = None,
    ) -> Page[AuditRow]:
        """One page.

        Args:
            limit: most rows of the page.
            cursor: of the page before.
            action, actor_id, target_id: only rows with this value.
            begin, end: only rows from this moment on, and before that one, as ISO 8601 in UTC.

        Raises:
            Denied: the actor is no admin.
            InvalidInput: the cursor is none, or a moment is none, or `begin` is not before `end`.
        """
        check_admin(actor)
        from_ms, to_ms = span(
            None if begin is None else moment_ms(begin, "from"),
            None if end is None else moment_ms(end, "to"),
            int(self._clock.now() * 1000),
        )
        before = None if cursor is None else place_of(cursor)
        return self._audit.page(AuditQuery(limit, from_ms, to_ms, before, action, actor_id, target_id))
