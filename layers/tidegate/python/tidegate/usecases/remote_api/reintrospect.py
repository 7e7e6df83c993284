"""Ask a remote API again about subscriptions it granted, one question for all that it has to answer alike.

Our own access items say who lost the right; those of a remote API are not ours to read. Its feed tells of share
versions only, so everything else it revokes (a member's right, a datasource, a profile) is found here.

Invariant of this file: only an answer ends a subscription. Whatever is not one keeps it and is counted as
`indeterminate`: an API that is down, slow, or refuses because it is asked too often cuts nobody.
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

#: Questions at the same time: enough to hide the network, few enough not to be a load of their own.
_PARALLEL = 8
#: A token that ends this soon is not asked about, seconds: it is refreshed or expires by itself, and the API's clock
#: may be ahead of ours, so its "no" would not mean that the right was lost.
SKEW_S = 30
#: A yes stands for later batches of the same pass, seconds; below the least interval of passes (60).
_YES_S = 50.0
#: Failures after which the API counts as down for the rest of the pass.
_FAILURES = 5
#: How long nothing is asked then, and after the API said that it is asked too often, seconds: the contract's window.
_PAUSE_S = 60.0


@dataclass(frozen=True, slots=True)
class _Verdict:
    """What came of one question. `outcome` is what metrics show, empty when it was not asked."""

    outcome: str = ""
    refusal: Refusal | None = None
    known: bool = False


_NOT_ASKED = _Verdict()
_GRANTED = _Verdict("granted", None, True)


class Reintrospect:
    """Check a batch of rows; the full revalidation calls it for those that `Evaluate` would keep."""

    def __init__(
        self, *, introspections: Introspections, keys: KeyHasher, per_minute: int, clock: Clock, observer: Observer
    ) -> None:
        """`per_minute`: questions in a minute; the API's own limit is shared with subscribes, so leave them some."""
        self._introspections = introspections
        self._keys = keys
        self._limit = IntrospectionBudget(per_minute, clock)
        self._clock = clock
        self._observer = observer
        # The segments of a pass come at the same time: one after the other, so that a class in several is asked once.
        self._one_batch = Lock()
        self._lock = Lock()
        self._granted_at: dict[IntrospectionKey, float] = {}
        self._failures = 0
        self._paused_until = 0.0

    def __call__(self, rows: Sequence[Subscription], deadline: float, *, anew: bool = False) -> list[Termination]:
        """Those that are to be terminated, each with why.

        Args:
            rows: of one batch; rows already marked are left to `Evaluate`.
            deadline: monotonic seconds after which nothing more is asked.
            anew: whether a yes of some seconds ago is to be asked again, because something has happened since.
        """
        classes: dict[IntrospectionKey, list[Subscription]] = {}
        for row in rows:
            if not row.termination:
                classes.setdefault(IntrospectionKey.of(row.claim), []).append(row)
        with self._one_batch:
            verdicts = self._verdicts(classes, deadline, anew=anew)
        judged: list[Termination] = []
        for one, members in classes.items():
            verdict = verdicts[one]
            if verdict.outcome:
                self._observer.count("introspections", outcome=verdict.outcome)
            if not verdict.known:
                self._observer.count("indeterminate", len(members))
            elif verdict.refusal is not None:
                judged += [(row, verdict.refusal) for row in members]
        return judged

    def _verdicts(
        self, classes: Mapping[IntrospectionKey, Sequence[Subscription]], deadline: float, *, anew: bool
    ) -> dict[IntrospectionKey, _Verdict]:
        started, now = self._clock.monotonic(), self._clock.now()
        self._granted_at = {one: at for one, at in self._granted_at.items() if started - at < _YES_S}
        verdicts: dict[IntrospectionKey, _Verdict] = {}
        questions: list[tuple[IntrospectionKey, Subscription]] = []
        for one, members in classes.items():
            freshest = max(members, key=lambda row: (row.session_token is not None, row.claim.expires_at))
            if (one in self._granted_at and not anew) or freshest.claim.expires_at - now <= SKEW_S:
                verdicts[one] = _Verdict(known=True)
            elif freshest.session_token is None:
                verdicts[one] = _NOT_ASKED
            else:
                questions.append((one, freshest))
        # Another order every minute, so that those behind the limit are not always the same.
        questions.sort(key=lambda question: zlib.crc32(f"{question[0]}{int(now // 60)}".encode()))
        answers = in_parallel(lambda question: self._ask(question[0], question[1], deadline), questions, _PARALLEL)
        verdicts |= dict(zip((one for one, _ in questions), answers, strict=True))
        return verdicts

    def _ask(self, one: IntrospectionKey, row: Subscription, deadline: float) -> _Verdict:
        if not self._may_ask(deadline):
            return _NOT_ASKED
        started = self._clock.monotonic()
        try:
            introspection = self._introspections.introspect(
                row.session_token or "", one.dashboard_id, one.datasource_id
            )
            same = introspection.stream_key(self._keys.key) == row.stream_key
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
        if not same:  # a secret, say, of which tokens know nothing: who comes back gets the new stream
            return _Verdict("changed", Refusal.INTENT_CHANGED, True)
        self._granted_at[one] = started
        return _GRANTED

    def _may_ask(self, deadline: float) -> bool:
        at = self._clock.monotonic()
        return at < deadline and at >= self._paused_until and self._limit.take()

    def _answered(self) -> None:
        with self._lock:
            self._failures = 0

    def _not_answered(self, *, busy: bool) -> None:
        with self._lock:
            self._failures += 1
            if busy or self._failures >= _FAILURES:
                self._failures = 0
                self._paused_until = self._clock.monotonic() + _PAUSE_S
