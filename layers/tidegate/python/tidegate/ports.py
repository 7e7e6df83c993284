"""What use cases need from the world, as Protocols. Adapters implement them; use cases know nothing else.

Conventions: reads named without remark are strongly consistent; a method whose docstring says *index* may lag.
Every method may raise `CouldNotCheck` when its store does not answer. Writes are safe to repeat with the same
arguments, because any answer may be lost: each says what a repetition does. `now` is epoch seconds (float),
`*_ms` epoch milliseconds (int).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, Protocol, TypeVar

from tidegate.domain.access import DashboardAccess, UserAccess
from tidegate.domain.limits import RateDecision
from tidegate.domain.revocations import Task
from tidegate.domain.subscriptions import Connection, CutMark, LastValue, Stream, Subscription, SubscriptionKey
from tidegate.domain.tokens import SessionClaims, UserClaims

T = TypeVar("T")


class Clock(Protocol):
    """Time, so that tests can hold it still."""

    def now(self) -> float:
        """Epoch seconds."""

    def monotonic(self) -> float:
        """Seconds of a clock that never jumps; for deadlines."""


class Ids(Protocol):
    """Randomness, so that tests can repeat it."""

    def new_id(self) -> str:
        """21 URL-safe characters, 126 bits: dashboards, users, profiles, attempts."""

    def new_share_token(self) -> str:
        """32 URL-safe characters from 24 random bytes."""


# --- what decisions are made from -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class AccessSnapshot:
    """Access items read together; ids without an item are absent from the maps."""

    dashboards: Mapping[str, DashboardAccess]
    users: Mapping[str, UserAccess]


class AccessStore(Protocol):
    """The access items."""

    def read(self, dashboard_ids: Iterable[str], user_ids: Iterable[str]) -> AccessSnapshot:
        """Read access items strongly, in as few calls as the store allows."""

    def intent(self, dashboard_id: str, datasource_id: str) -> Mapping[str, object] | None:
        """The canonical intent stored for a datasource (see `domain.intents`), None when there is none."""


# --- connections and subscriptions ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ScanPage(Generic[T]):
    """One page of a scan. `position` is opaque; None at the segment's end."""

    items: Sequence[T]
    position: str | None


class Hold(StrEnum):
    """Outcome of `ConnectionStore.hold`."""

    HELD = "held"
    GONE = "gone"  # no such connection, or it is closing
    FULL = "full"  # its set is at the cap
    OTHER_DASHBOARD = "other_dashboard"  # it holds this datasource id for another dashboard


class ConnectionStore(Protocol):
    def open(self, connection: Connection) -> None:
        """Store a new connection. Repeating changes nothing: an existing row of that id is left as it is."""

    def get(self, connection_id: str) -> Connection | None: ...

    def hold(self, key: SubscriptionKey, cap: int, slot: str) -> Hold:
        """Add the key to the connection's set and note the slot it is about to take, in one conditional write.

        Holds when the connection is open, not closing, and either holds the key already or its set is below
        `cap`. Repeating changes nothing.
        """

    def note_slot(self, connection_id: str, slot: str) -> bool:
        """Note a further slot before it is taken. False when the connection is gone or closing."""

    def forget_slots(self, connection_id: str, slots: Iterable[str]) -> None:
        """Remove slots that were noted but not taken. No error when the connection is gone."""

    def remove(self, connection_id: str) -> Connection | None:
        """Delete the row and return what it was; None when it was gone already."""

    def scan(self, segment: int, segments: int, after: str | None = None) -> Iterator[ScanPage[Connection]]:
        """One of `segments` disjoint parts of the table, which are all of it, page by page, in no order; from a page's
        `position` on when `after` gives one. For the full pass only: together they read the whole table."""

    def close_if_empty(self, connection_id: str) -> bool:
        """Mark `closing` on the condition that the set is empty. True when marked now or before."""


class SubscriptionStore(Protocol):
    def get(self, key: SubscriptionKey) -> Subscription | None: ...

    def put_hidden(self, row: Subscription) -> bool:
        """Write the row hidden over whatever is there, unless that is cut, or live on the same grant (which is to be
        refreshed: this attempt may yet fail), or this row has a share version and what is there a higher one: then
        False. (A member's row has none; it and a guest's may replace each other.)"""

    def make_visible(self, row: Subscription) -> bool:
        """Show the row, conditional on it being of this attempt and not cut. True when visible now."""

    def move_expiry(self, row: Subscription, expires_at: int, session_token: str | None = None) -> bool:
        """Move `exp` forward on the very row seen (same attempt, visible, not cut), and the token kept with it.

        True when the row's `exp` is now `expires_at` or later; False when it is another row, hidden or cut.
        """

    def mark_cut(self, row: Subscription, mark: CutMark, *, expired_at: int | None = None) -> bool:
        """Mark ended and take it out of the stream index, conditional on the attempt and on no other run's mark that
        still holds.

        With `expired_at` (epoch seconds) also conditional on `exp` being no later, so that a refresh in between wins.
        False when it is another row, was refreshed, or is another run's. Repeating with the same mark is harmless.
        """

    def remove(self, row: Subscription) -> bool:
        """Delete the row, conditional on its attempt and its mark being those seen, and its key from the connection's
        set, in one transaction.

        False when another attempt's row is there, or it was marked meanwhile (nothing changes). A row or connection
        already gone is fine.
        """

    def release_key(self, key: SubscriptionKey) -> None:
        """Take the key out of the connection's set, on the condition that no row of it exists."""

    def remove_all_of(self, connection: Connection) -> None:
        """Delete the rows of a connection whose own row was removed. Repeating is harmless."""

    def of_dashboard(self, dashboard_id: str) -> Iterator[Subscription]:
        """All rows of a dashboard, hidden and cut ones too, all shards."""

    def of_user(self, user_id: str) -> Iterator[Subscription]:
        """*Index.* All rows whose principal is this user, each read again from the table."""

    def scan(self, segment: int, segments: int, after: str | None = None) -> Iterator[ScanPage[Subscription]]:
        """Rows of one part of the table, as `ConnectionStore.scan`."""

    def audience(self, stream: str) -> Sequence[Subscription]:
        """*Index.* The live rows of `streamKey#shard`."""


@dataclass(frozen=True, slots=True)
class EntryStreams:
    """The streams one allowlist entry feeds. `version` moves whenever one is added."""

    version: int
    streams: Sequence[Stream]


class StreamStore(Protocol):
    def want(self, stream: Stream) -> Stream:
        """Create or touch the stream (`wanted_at` only moves forward) and return it as stored.

        When it returns, `version_of` the stream's entry has moved if the stream is new, or is the relay's and not
        connected: a message that arrives later finds it, and a worker that holds the relay's streams looks at them.
        Repeating is harmless.
        """

    def note_connected(self, stream: Stream, connected: bool) -> None:
        """Write down whether a stream of the relay is connected, for whoever subscribes next."""

    def let_go(self, stream: Stream) -> bool:
        """Note that it is not connected, unless somebody wanted it after `stream.wanted_at`: then False."""

    def version_of(self, entry: str | None) -> int:
        """What `of_entry` would answer as its version."""

    def of_entry(self, entry: str | None) -> EntryStreams:
        """Streams fed by one allowlist entry, or, without one, by the relay, which somebody wanted within a day."""


class LastValueStore(Protocol):
    def get(self, stream_key: str) -> LastValue | None: ...

    def put_if_newer(self, stream_key: str, value: LastValue) -> bool:
        """Store unless a value of equal or higher order is there: then False. A repetition of the very value
        that is stored answers True, so that a lost answer does not lose the message."""


# --- limits -----------------------------------------------------------------------------------------------


class RateCounter(Protocol):
    def count(
        self, key: str, limit: int, now_ms: int, window_ms: int, request_id: str, deadline: float
    ) -> RateDecision:
        """Count one call against `limit` in the fixed window of `now_ms`, in one conditional write.

        Args:
            key: what is limited, already an HMAC.
            request_id: of this call; a retry carries the same one and is not counted twice.
            deadline: monotonic seconds after which `CouldNotCheck` is raised.
        A store that throttles this key answers like a refusal.
        """


class RateStore(RateCounter, Protocol):
    def peek(self, key: str, now_ms: int, window_ms: int, deadline: float) -> int:
        """Calls counted in the window so far, without counting this look."""

    def clear(self, key: str, now_ms: int, window_ms: int) -> None:
        """Forget the key's current window (a successful login clears its failures)."""

    def lock(self, key: str, until_ms: int, deadline: float) -> None:
        """Lock the key until then, epoch milliseconds; a later lock stands."""

    def locked_until_ms(self, key: str, deadline: float) -> int:
        """Epoch milliseconds until which the key is locked; 0 when it never was."""


class CapStore(Protocol):
    def take(self, cap: str, shard: int, limit: int, holder: str, deadline: float | None = None) -> bool:
        """Add the holder to one shard's set while the set is below `limit`. True when it is in the set."""

    def scan(self, segment: int, segments: int, after: str | None = None) -> Iterator[ScanPage[tuple[str, int, str]]]:
        """(cap, shard, holder) of one part of the table, as `ConnectionStore.scan`."""

    def release(self, cap: str, shard: int, holder: str) -> None:
        """Remove the holder from one shard's set. Repeating changes nothing."""


# --- delivery ---------------------------------------------------------------------------------------------


class Delivery(StrEnum):
    """What became of one message to one connection."""

    DELIVERED = "delivered"
    GONE = "gone"  # the platform says 410
    TOO_LARGE = "too_large"
    FORBIDDEN = "forbidden"
    THROTTLED = "throttled"
    FAILED = "failed"
    WITHHELD = "withheld"  # the check before sending said no


@dataclass(frozen=True, slots=True)
class Post:
    """One message for one connection. `tag` is the caller's own and comes back with the result."""

    connection_id: str
    body: bytes
    tag: object = None


@dataclass(frozen=True, slots=True)
class Posted:
    """Result of one post."""

    post: Post
    delivery: Delivery


class Outgoing(Protocol):
    """What a sender sends, as long as there is something. Times are the sender's, monotonic seconds."""

    def ready(self, now: float) -> int:
        """How many posts could be taken now."""

    @property
    def due(self) -> float | None:
        """When more becomes ready by time alone; None when nothing will."""

    @property
    def ended(self) -> bool:
        """Nothing is added any more."""

    def take(self, now: float) -> Post | None:
        """The next post. None when none is ready."""

    def before(self, post: Post) -> Post | None:
        """Asked before every try: what to send in the post's place, to the same connection. None withholds it; then
        `answered` is not called for it."""

    def answered(self, post: Post, delivery: Delivery) -> None:
        """What became of a post."""


class Sender(Protocol):
    """The managed WebSocket's management API. A missing connection is a result, never an exception."""

    def post(self, connection_id: str, body: bytes) -> Delivery: ...

    def post_many(
        self, posts: Iterable[Post], *, before_each: Callable[[Post], bool] | None = None, deadline: float | None = None
    ) -> Sequence[Posted]:
        """Send many. `before_each` is asked before every send and every retry; False withholds."""

    def send(self, outgoing: Outgoing) -> None:
        """Send what there is until it has ended and everything was answered. A post that takes long keeps no other."""

    def wake(self) -> None:
        """From any thread: what `send` sends has more, or has ended."""

    def end(self) -> None:
        """Nothing is sent any more: give back what is kept open."""

    def exists(self, connection_id: str) -> bool: ...

    def close(self, connection_id: str) -> None:
        """Ask the platform to close the connection; one already gone is fine."""


class Revalidations(Protocol):
    """The queue of revalidation work. What is queued is done at least once."""

    def queue(self, task: Task, delay_s: int = 0) -> None: ...


class FollowRequests(Protocol):
    """The queue of requests to follow changes of profiles."""

    def ask(self) -> None:
        """Ask that whatever change is open be followed now. Asking often is harmless."""


class CursorStore(Protocol):
    """Our own reader's place in the feed."""

    def cursor(self) -> int | None:
        """Id up to which events were applied; None before the first."""

    def move_cursor(self, old: int | None, new: int) -> bool:
        """Conditional on the old value. False when another reader moved it."""


@dataclass(frozen=True, slots=True)
class PassRun:
    """A run of a full pass: the right to carry it on.

    Attributes:
        owner: this run's own id; another run of the same pass has another.
        began: when the pass began, epoch seconds; earlier runs of it may have been interrupted.
        progress: step -> where earlier runs were.
    """

    owner: str
    began: int
    progress: Mapping[str, str]


class FullPasses(Protocol):
    """The one full pass: when it is due, who runs it, how far it is."""

    def begin(self, owner: str, now: int, interval_s: int, life_s: int) -> PassRun | None:
        """Begin a pass that is due, or carry on one left unfinished; None when neither, or while a run's lease holds.

        Due: the last one began `interval_s` ago or more, or a pass was demanded since. `now` is epoch seconds; the
        lease holds for `life_s`. One conditional write: of several callers at once, one gets it. A repetition by the
        same owner gets it again.
        """

    def note(self, run: PassRun, step: str, position: str) -> bool:
        """Write down how far a step is. False when another run has the pass."""

    def pause(self, run: PassRun) -> None:
        """Let the lease go, keep the progress. Harmless when another run has the pass."""

    def end(self, run: PassRun) -> None:
        """The pass is complete. Harmless when another run has it."""

    def demand(self, now: int) -> None:
        """A pass is due now, whatever the interval; one that runs already does not count. `now` is epoch seconds."""


class Relays(Protocol):
    """The relay's workers."""

    def start(self, shard: int, *, successor: bool = False) -> None:
        """See to it that a worker holds the shard's upstreams soon. Asking again, or needlessly, is harmless.

        A `successor` is connected beside the worker that asks, and waits to be handed the shard.
        """


class SecondLooks(Protocol):
    def queue(self, key: SubscriptionKey, attempt: str, stream_key: str, seen: LastValue | None) -> None:
        """Ask for a second look at the stream's last value for this subscription, some seconds from now."""


# --- tokens and secrets -----------------------------------------------------------------------------------


class SessionTokens(Protocol):
    def verify(self, token: str, now: float) -> SessionClaims:
        """Check signature, issuer, audience and expiry. Raises `Unauthenticated`."""

    def sign(self, claims: SessionClaims) -> str: ...


class UserTokens(Protocol):
    def verify(self, token: str, now: float) -> UserClaims:
        """Check a login token. Raises `Unauthenticated`."""

    def sign(self, claims: UserClaims) -> str: ...


class PasswordHasher(Protocol):
    def hash(self, password: str) -> str:
        """Argon2id, PHC string format."""

    def verify(self, password_hash: str, password: str) -> bool: ...

    def needs_rehash(self, password_hash: str) -> bool: ...


class CredentialCipher(Protocol):
    """AES-256-GCM with the profile id as associated data."""

    def encrypt(self, profile_id: str, secret: Mapping[str, str]) -> str:
        """An opaque text that names its key."""

    def decrypt(self, profile_id: str, sealed: str) -> Mapping[str, str]: ...


class KeyHasher(Protocol):
    def key(self, *parts: str) -> str:
        """First 32 hex characters of HMAC-SHA256 over the lower-cased parts: limiter keys and stored addresses."""


# --- what operators see --------------------------------------------------------------------------------


class Observer(Protocol):
    """Counts and events for operators."""

    def count(self, name: str, value: int = 1, **dimensions: str) -> None: ...

    def time(self, name: str, milliseconds: float) -> None:
        """One sample of a duration."""

    def info(self, message: str, **fields: object) -> None: ...

    def warning(self, message: str, **fields: object) -> None: ...

    def fault(self, message: str, error: BaseException, **fields: object) -> None:
        """Something unexpected; its text goes to the log, never to a client."""
