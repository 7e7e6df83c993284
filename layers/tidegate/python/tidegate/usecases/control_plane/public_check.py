"""Which datasources of a dashboard guests are refused now, and why, for who shares it.

Invariant of this file: a datasource is named exactly when the authorizer would refuse it to a guest who subscribes now.
What is asked besides only chooses a better text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tidegate.domain.intents import streaming
from tidegate.domain.stream_policy import StreamPolicy
from tidegate.domain.switches import REALTIME_OFF
from tidegate.domain.users import User
from tidegate.errors import Disabled, PolicyBlocked, TidegateError, Unavailable
from tidegate.ports.profiles import ProfileStore
from tidegate.ports.runtime import Clock
from tidegate.usecases.control_plane.author_profiles import Opened
from tidegate.usecases.control_plane.check_topic import check_topic
from tidegate.usecases.control_plane.resolve_intents import ProfilesRead, Resolved, ResolveIntents
from tidegate.usecases.gateway.authorizer import LocalAuthorizer

#: What helps, by the code of the refusal.
_HELP = {
    "public_use_denied": "An administrator may allow public use of the profile.",
    "destination_denied": "An administrator may add the address to the profile's destinations.",
}


@dataclass(frozen=True, slots=True)
class Blocker:
    """A datasource that guests are refused.

    Attributes:
        title: the datasource's, empty when it has none.
        code: of the refusal; `datasource_unresolved` when there is nothing to connect to.
        message: for who shares the dashboard.
    """

    datasource_id: str
    title: str
    code: str
    message: str


class PublicCheck:
    """The use case behind `POST /dashboards/{id}/public-check`."""

    def __init__(
        self,
        *,
        enabled: bool,
        shareable: Opened,
        profiles: ProfileStore,
        resolve: ResolveIntents,
        authorizer: LocalAuthorizer,
        policy: StreamPolicy,
        clock: Clock,
    ) -> None:
        """`enabled`: whether realtime is switched on."""
        self._enabled = enabled
        self._shareable = shareable
        self._profiles = profiles
        self._resolve = resolve
        self._authorizer = authorizer
        self._policy = policy
        self._clock = clock

    def __call__(self, user: User, dashboard_id: str) -> list[Blocker]:
        """The blockers, in the order of the document. A datasource that is switched off, or does not stream, is none.

        Raises:
            NotFound, Denied: the user may not share the dashboard.
            Unavailable: it could not be checked.
        """
        document = self._shareable(user, dashboard_id).document
        datasources = list(streaming(document))
        refusals = self._refusals(dashboard_id, [str(each["id"]) for each in datasources])
        if not any(refusals):
            return []
        profiles = ProfilesRead(self._profiles)
        resolved = self._resolve(dashboard_id, document, profiles)
        return [
            self._blocker(datasource, refusal, resolved, profiles)
            for datasource, refusal in zip(datasources, refusals, strict=True)
            if refusal is not None
        ]

    def _refusals(self, dashboard_id: str, datasource_ids: Sequence[str]) -> list[TidegateError | None]:
        if not self._enabled:
            return [Disabled(REALTIME_OFF) for _ in datasource_ids]
        answers = self._authorizer.of_guests(dashboard_id, datasource_ids, self._clock.now())
        for answer in answers:
            if isinstance(answer, Unavailable):
                raise answer
        return [answer if isinstance(answer, TidegateError) else None for answer in answers]

    def _blocker(
        self, datasource: Mapping[str, Any], refusal: TidegateError, resolved: Resolved, profiles: ProfilesRead
    ) -> Blocker:
        datasource_id, title = str(datasource["id"]), str(datasource.get("title") or "")
        problem, intent = resolved.problems.get(datasource_id), resolved.intents.get(datasource_id)
        if problem is not None and not isinstance(refusal, Disabled):
            return Blocker(datasource_id, title, "datasource_unresolved", problem.message)
        message = refusal.message
        broker, _ = profiles.of(datasource)
        if isinstance(refusal, PolicyBlocked) and broker is not None and intent is not None:
            message = check_topic(broker, str(intent["topic"]), self._policy).problem or message
        if refusal.code in _HELP:
            message = f"{message}. {_HELP[refusal.code]}"
        return Blocker(datasource_id, title, refusal.code, message)
