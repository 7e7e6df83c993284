"""A stream's status and last value as frames: for viewers who come, and for those who may have missed a change."""

from __future__ import annotations

from tidegate.domain.subscriptions import LastValue, Stream
from tidegate.protocol import messages
from tidegate.protocol.messages import ErrorCode, Status


def status_frame(datasource_id: str, stream: Stream, now: float) -> bytes:
    """The `status` frame of a stream as stored. `now`: epoch seconds.

    Whoever feeds a stream from IoT Core is always there. A stream of the relay is what the relay reported last.
    """
    if stream.connected or not stream.relayed:
        return messages.encode(messages.status(datasource_id, Status.CONNECTED, now))
    if stream.fault is None:
        return messages.encode(messages.status(datasource_id, Status.CONNECTING, now))
    code, text = ErrorCode(stream.fault.code), stream.fault.text
    return messages.encode(messages.status(datasource_id, Status.ERROR, now, code, text))


def value_frame(datasource_id: str, value: LastValue, *, retained: bool = False) -> bytes:
    """The `data` frame of a value. `retained`: it is the last value that is stored, not a new one."""
    return messages.data(
        datasource_id,
        value.payload,
        value.timestamp_ms / 1000,
        value.seq,
        topic=value.topic,
        deleted=value.deleted,
        retained=retained,
    )
