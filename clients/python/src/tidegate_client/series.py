"""The values of one datasource, or of one topic of it: the newest, and those of a while."""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any


@dataclass(slots=True)
class Sample:
    """A value, or what stands for several of them.

    Attributes:
        at: by the server's clock, UTC.
        value: any JSON.
        topic: where it was published, of a datasource whose topic filter has a wildcard.
        seq: orders the values of a subscription.
        bucket: it is a point of a history, and stands for all values of a bucket; `least` and `most` are of its
            numbers.
        gap: values may be missing before this one.
        deleted: the source took its value back; `value` is None.
    """

    at: datetime
    value: Any
    topic: str | None = None
    seq: str | None = None
    bucket: bool = False
    least: float | None = None
    most: float | None = None
    gap: bool = False
    deleted: bool = False


class Series:
    """Values by time.

    Attributes:
        latest: the newest value; None before the first one, and after the source took it back.
        samples: by time, the oldest first, at most `capacity`.
        seq: of the newest value, also of one that was taken back. A new subscription names it as `since`.
    """

    def __init__(self, topic: str | None, capacity: int) -> None:
        self.topic = topic
        self.capacity = capacity
        self.latest: Sample | None = None
        self.samples: list[Sample] = []
        self.seq: str | None = None
        self._floor: str | None = None
        #: Up to here all values are in buckets.
        self._covered = ""
        self._gap = False
        #: Where the gap is that `recovered` may fill.
        self._marked: Sample | None = None

    def renew(self) -> None:
        """A new subscription begins, perhaps to another source: its `seq` cannot be compared with those before."""
        self._floor = self._marked = None
        self._covered = ""
        self._gap = bool(self.samples)

    def recovered(self) -> None:
        """Nothing is missing since `renew`."""
        self._gap = False
        if self._marked is not None:
            self._marked.gap = False

    def take(self, frame: Mapping[str, Any], now: datetime) -> Sample | None:
        """Takes a value of a `data` frame. Returns None for one that is not newer than what is shown."""
        at, seq = moment(frame.get("timestamp")) or now, frame.get("seq")
        if seq is not None:
            if self._old(at, seq):
                return None
            self.seq = self._floor = seq
        deleted = bool(frame.get("deleted"))
        sample = Sample(at, frame.get("payload"), self.topic, seq, deleted=deleted)
        if deleted:
            self.latest = None
            return sample
        self.latest = sample
        if seq is None or seq > self._covered:
            self._keep(sample)
        return sample

    def _old(self, at: datetime, seq: str) -> bool:
        shown = self.latest
        if self._floor is not None:
            return seq <= self._floor
        # Of another subscription only the times can be compared.
        if shown is not None and seq == shown.seq:
            self._floor = seq
            return True
        return shown is not None and at < shown.at

    def _keep(self, sample: Sample) -> None:
        if self._gap:
            sample.gap, self._marked, self._gap = True, sample, False
        insort(self.samples, sample, key=lambda one: one.at)
        del self.samples[: -self.capacity]

    def merge(self, points: Iterable[Mapping[str, Any]]) -> None:
        """Takes points of a history.

        A point takes the place of the one with the same beginning, and of the values in it: those of its bucket up to
        its `seq`.
        """
        buckets = {sample.at: sample for sample in self.samples if sample.bucket}
        for point in points:
            at, seq = moment(point.get("at")), point["seq"]
            value = point.get("last", point.get("least"))
            if at is None or value is None:
                continue
            bucket = buckets.setdefault(at, Sample(at, None, self.topic, bucket=True))
            if (bucket.seq or "") > seq:
                continue
            bucket.value, bucket.seq = value, seq
            bucket.least, bucket.most = point.get("least"), point.get("most")
            self._covered = max(self._covered, seq)
        alone = [sample for sample in self.samples if not sample.bucket]
        kept: list[Sample] = []
        latest: Sample | None = None
        for sample in sorted([*buckets.values(), *alone], key=lambda one: one.at):
            if sample.bucket:
                latest = sample
            elif latest is not None and sample.seq is not None and sample.seq <= (latest.seq or ""):
                self._absorb(sample, latest)
                continue
            kept.append(sample)
        self.samples = kept[-self.capacity :]

    def _absorb(self, sample: Sample, bucket: Sample) -> None:
        bucket.gap = bucket.gap or sample.gap
        if sample is self._marked:
            self._marked = bucket


def moment(text: object) -> datetime | None:
    """A time of the wire, ISO 8601. None when it is none."""
    try:
        return datetime.fromisoformat(str(text)).astimezone(UTC)
    except ValueError:
        return None
