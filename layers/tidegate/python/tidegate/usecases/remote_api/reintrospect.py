"""Ask a remote API again about subscriptions that it authorized.

Rows for which its answer must be the same share one question.

Who lost a right on a dashboard of ours is found in our access items. Those of a remote API we cannot read. Its feed
reports share versions only. So everything else that it revokes (a member's right, a datasource, a profile) is found
here.

Invariant of this file: only an answer ends a subscription. Without an answer the subscription is kept and counted as
`indeterminate`. So an API that is down, slow, or refuses because it is asked too often terminates nobody.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from threading import Lock

from tidegate.domain.access import Refusal
from tidegate.domain.remote_api import IntrospectionKey
from tidegate.domain.subscriptions import Subscription, Termination
from tidegate.errors import ApiBusy, Denied, InvalidInput, NotFound, PolicyBlocked, Unauthenticated, Unavailable
from tidegate.ports.limits import KeyHasher
from tidegate.ports.remote_api import Introspections
from tidegate.ports.runtime import Clock, Observer
from tidegate.usecases.parallel import in_parallel
from tidegate.usecases.remote_api.introspection import IntrospectionBudget

#: Questions at the same time: enough to hide the delay of the network, few enough not to burden the API.
_PARALLEL = 8
#: A token that expires within this time, seconds, is not asked about. It is refreshed or expires by itself. And the
#: API's clock may be ahead of ours, so its "no" would not mean that the right was lost.
SKEW_S = 30
#: How long a yes is used for later batches of the same full revalidation, seconds. Less than the least interval of full
#: revalidations, which is 60.
_YES_S = 50.0
#: Failures in a row after which the API counts as down, and nothing is asked for `_PAUSE_S`.
_FAILURES = 5
#: How long nothing is asked when the API counts as down or says that it is asked too often, seconds. As long as the
#: window of the API's limit.
_PAUSE_S = 60.0


@dataclass(frozen=True, slots=True)
class _Verdict:
    """What came of one question.

    Attributes:
        outcome: what metrics show; empty when nothing was asked.
        refusal: why the rows are to be terminated; None keeps them.
        known: whether the rows are decided. Otherwise they are kept and counted as `indeterminate`.
    """

    outcome: str = ""
    refusal: Refusal | None = None
    known: bool = False


_NOT_ASKED = _Verdict()
_AUTHORIZED = _Verdict("authorized", None, True)


class Reintrospect:
    """Checks a batch of rows. Called for the rows that `Evaluate` keeps."""

    def __init__(
        self, *, introspections: Introspections, keys: KeyHasher, per_minute: int, clock: Clock, observer: Observer
    ) -> None:
        """`per_minute`: most questions in a minute; see `introspection.recheck_budget`."""
        self._introspections = introspections
        self._keys = keys
        self._budget = IntrospectionBudget(per_minute, clock)
        self._clock = clock
        self._observer = observer
        # The segments of a full revalidation call at the same time. They are let in one by one, so that a key which is
        # in several of them is asked about once.
        self._one_batch = Lock()
        self._lock = Lock()
        self._authorized_at: dict[IntrospectionKey, float] = {}
        self._failures = 0
        self._paused_until = 0.0

    def __call__(self, rows: Sequence[Subscription], deadline: float, *, anew: bool = False) -> list[Termination]:
        """The rows that are to be terminated, each with the reason.

        Args:
            rows: one batch. Rows with a termination claim are left to `Evaluate`.
            deadline: monotonic seconds after which nothing more is asked.
            anew: whether to ask again where there was a yes some seconds ago, because something has happened since.
        """
        rows_of: dict[IntrospectionKey, list[Subscription]] = {}
        for row in rows:
            if not row.termination:
                rows_of.setdefault(IntrospectionKey.of(row.claim), []).append(row)
        with self._one_batch:
            verdicts = self._verdicts(rows_of, deadline, anew=anew)
        terminations: list[Termination] = []
        for key, members in rows_of.items():
            verdict = verdicts[key]
            if verdict.outcome:
                self._observer.count("introspections", outcome=verdict.outcome)
            if not verdict.known:
                self._observer.count("indeterminate", len(members))
            elif verdict.refusal is not None:
                terminations += [(row, verdict.refusal) for row in members]
        return terminations

    def _verdicts(
        self, rows_of: Mapping[IntrospectionKey, Sequence[Subscription]], deadline: float, *, anew: bool
    ) -> dict[IntrospectionKey, _Verdict]:
        started, now = self._clock.monotonic(), self._clock.now()
        self._authorized_at = {key: at for key, at in self._authorized_at.items() if started - at < _YES_S}
        verdicts: dict[IntrospectionKey, _Verdict] = {}
        questions: list[tuple[IntrospectionKey, Subscription]] = []
        for key, members in rows_of.items():
            freshest = max(members, key=lambda row: (row.session_token is not None, row.claim.expires_at))
            if (key in self._authorized_at and not anew) or freshest.claim.expires_at - now <= SKEW_S:
                verdicts[key] = _Verdict(known=True)
            elif freshest.session_token is None:
                verdicts[key] = _NOT_ASKED
            else:
                questions.append((key, freshest))
        # The order changes every minute, so that it is not always the same keys for which the budget is not enough.
        questions.sort(key=lambda question: zlib.crc32(f"{question[0]}{int(now // 60)}".encode()))
        answers = in_parallel(lambda question: self._ask(question[0], question[1], deadline), questions, _PARALLEL)
        verdicts |= dict(zip((key for key, _ in questions), answers, strict=True))
        return verdicts

    def _ask(self, key: IntrospectionKey, row: Subscription, deadline: float) -> _Verdict:
        if not self._may_ask(deadline):
            return _NOT_ASKED
        started = self._clock.monotonic()
        try:
            introspection = self._introspections.introspect(
                row.session_token or "", key.dashboard_id, key.datasource_id
            )
            same = introspection.is_of(row.stream_key, self._keys.known())
        except (Denied, NotFound, Unauthenticated) as error:
            self._answered()
            return _Verdict(error.code, Refusal.REVOKED, True)
        except (InvalidInput, PolicyBlocked) as error:
            self._answered()
            return _Verdict(error.code, Refusal.INTENT_CHANGED, True)
        except Unavailable as error:
            self._not_answered(busy=isinstance(error, ApiBusy))
            return _Verdict(error.code)
        self._answered()
        if not same:  # for example another secret, which no token names: a viewer who comes back gets the new stream
            return _Verdict("changed", Refusal.INTENT_CHANGED, True)
        self._authorized_at[key] = started
        return _AUTHORIZED

    def _may_ask(self, deadline: float) -> bool:
        at = self._clock.monotonic()
        return at < deadline and at >= self._paused_until and self._budget.take()

    def _answered(self) -> None:
        with self._lock:
            self._failures = 0

    def _not_answered(self, *, busy: bool) -> None:
        with self._lock:
            self._failures += 1
            if busy or self._failures >= _FAILURES:
                self._failures = 0
                self._paused_until = self._clock.monotonic() + _PAUSE_S
