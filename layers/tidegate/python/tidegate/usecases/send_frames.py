"""Send frames to subscriptions: each to whoever may have it at that moment, batched where the connection asked.

Invariant of this file (invariant 2 of the product): a frame leaves only to a row that `allowed` admitted from access
items whose read *started* at most one second ago, and whose token has not expired at that moment. An answer that
cannot be had withholds the frame. Every retry asks again, and of a batch only the frames still allowed are sent.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from tidegate.domain import batches
from tidegate.domain.errors import CouldNotCheck
from tidegate.domain.subscriptions import Subscription, SubscriptionKey
from tidegate.ports import AccessStore, Clock, Delivery, Observer, Post, SecondLooks, Sender
from tidegate.usecases.end_connection import EndConnection
from tidegate.usecases.fresh_access import FreshAccess


@dataclass(frozen=True, slots=True)
class Frame:
    """One encoded frame for one subscription. `is_data`: a newer one of the same subscription may take its place."""

    row: Subscription
    body: bytes
    is_data: bool


class SendFrames:
    """One thread's way to the platform; keeps access items for at most a second."""

    def __init__(
        self,
        *,
        access: AccessStore,
        second_looks: SecondLooks,
        sender: Sender,
        end_connection: EndConnection,
        clock: Clock,
        observer: Observer,
        may_send: Callable[[], bool] = lambda: True,
    ) -> None:
        """`may_send` is asked before every send and every retry: a relay that lost its lease sends nothing more."""
        self._access = FreshAccess(access, clock)
        self._second_looks = second_looks
        self._sender = sender
        self._end_connection = end_connection
        self._observer = observer
        self._may_send = may_send

    def __call__(self, frames: Sequence[Frame]) -> Mapping[Delivery, int]:
        """Send them; those of one subscription, and of one connection with batches, in order.

        Whoever is gone is released; who could not be sent a frame gets a second look.

        Returns:
            What became of the frames: how many per outcome.

        Raises:
            CouldNotCheck: nothing was sent, because the access items could not be read.
        """
        if not frames:
            return {}
        self._access.load(frame.row for frame in frames)
        outcomes: dict[Delivery, int] = {}
        gone: set[str] = set()
        for posts in _rounds(frames):
            waiting = [post for post in posts if post.connection_id not in gone]
            self._round(waiting, outcomes, gone)
        self._release(gone)
        for delivery, count in outcomes.items():
            self._observer.count("deliveries", count, outcome=delivery.value)
        return outcomes

    def try_again_later(self, rows: Iterable[Subscription]) -> None:
        """A stream's newest value is always tried again; by then it may be a newer one."""
        for row in rows:
            try:
                self._second_looks.queue(row.key, row.attempt, row.stream.rpartition("#")[0], None)
            except CouldNotCheck:
                self._observer.count("second_looks_lost")

    def _round(self, posts: Sequence[Post], outcomes: dict[Delivery, int], gone: set[str]) -> None:
        withheld: set[SubscriptionKey] = set()  # by the last asking
        unchecked: set[SubscriptionKey] = set()

        def admitted(post: Post) -> Post | None:
            frames = _frames(post)
            kept = [frame for frame in frames if self._admits(frame.row, withheld, unchecked)]
            if len(kept) == len(frames):
                return post
            return Post(post.connection_id, batches.joined([one.body for one in kept]), tuple(kept)) if kept else None

        for posted in self._sender.post_many(posts, before_each=admitted):
            if posted.delivery is Delivery.GONE:
                gone.add(posted.post.connection_id)
            for frame in _frames(posted.post):
                kept_back = frame.row.key in withheld
                delivery = Delivery.WITHHELD if kept_back else posted.delivery
                outcomes[delivery] = outcomes.get(delivery, 0) + 1
                if frame.row.key in unchecked or delivery in (Delivery.THROTTLED, Delivery.FAILED):
                    self.try_again_later([frame.row])

    def _admits(self, row: Subscription, withheld: set[SubscriptionKey], unchecked: set[SubscriptionKey]) -> bool:
        withheld.discard(row.key)
        unchecked.discard(row.key)
        try:
            if self._access.allows(row) and self._may_send():
                return True
        except CouldNotCheck:
            self._observer.count("withheld_unchecked")
            unchecked.add(row.key)
        withheld.add(row.key)
        return False

    def _release(self, connections: Collection[str]) -> None:
        """One viewer that is gone never keeps a message from the others, nor does cleaning up after it."""
        for connection_id in connections:
            try:
                self._end_connection.gone(connection_id)
            except CouldNotCheck:
                self._observer.count("viewers_not_released")


def _frames(post: Post) -> tuple[Frame, ...]:
    assert isinstance(post.tag, tuple)
    return post.tag


def _rounds(frames: Iterable[Frame]) -> Iterator[list[Post]]:
    """Posts that may be under way at the same time, round after round: the platform does not keep the order of two."""
    lines: dict[object, list[Frame]] = {}
    for frame in frames:
        lines.setdefault(frame.row.key.connection_id if frame.row.batch else frame.row.key, []).append(frame)
    posts = []
    for line in lines.values():
        groups = batches.split(line, lambda frame: frame.body) if line[0].row.batch else [[frame] for frame in line]
        connection_id = line[0].row.key.connection_id
        posts.append(
            [Post(connection_id, batches.joined([one.body for one in group]), tuple(group)) for group in groups]
        )
    for round_ in zip_longest(*posts):
        yield [post for post in round_ if post is not None]
