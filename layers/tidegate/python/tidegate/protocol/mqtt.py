"""MQTT packets as a client writes and reads them, without input or output: versions 5 and 3.1.1, QoS 0 and 1.

Numbers in brackets are sections of the standards:
https://docs.oasis-open.org/mqtt/mqtt/v5.0/os/mqtt-v5.0-os.html,
https://docs.oasis-open.org/mqtt/mqtt/v3.1.1/os/mqtt-v3.1.1-os.html
"""

from __future__ import annotations

from dataclasses import dataclass

#: Protocol levels, as CONNECT names them [3.1.2.2].
V5, V311 = 5, 4
CONNACK, PUBLISH, PUBACK, SUBACK, UNSUBACK, PINGRESP, DISCONNECT = 2, 3, 4, 9, 11, 13, 14
#: Return codes and reason codes from this one on are refusals [2.4]. In CONNACK of 3.1.1 every code but 0 is one.
REFUSED = 0x80

PING = b"\xc0\x00"
BYE = b"\xe0\x00"

#: How a property's value is written, by its identifier [2.2.2.2]: bytes of a number, or one of the others.
_VARIABLE, _BINARY, _PAIR = -1, -2, -3
_PROPERTIES = {
    **dict.fromkeys((0x01, 0x17, 0x19, 0x24, 0x25, 0x28, 0x29, 0x2A), 1),
    **dict.fromkeys((0x13, 0x21, 0x22, 0x23), 2),
    **dict.fromkeys((0x02, 0x11, 0x18, 0x27), 4),
    **dict.fromkeys((0x03, 0x08, 0x09, 0x12, 0x15, 0x16, 0x1A, 0x1C, 0x1F), _BINARY),
    0x0B: _VARIABLE,
    0x26: _PAIR,
}
_SUBSCRIPTION_ID, _SERVER_KEEP_ALIVE, _IDS_AVAILABLE = 0x0B, 0x13, 0x29
#: Send what is retained only when the subscription is new [3.8.3.1].
_RETAINED_IF_NEW = 1 << 4


class Malformed(ValueError):
    """A packet that the protocol does not allow."""


@dataclass(frozen=True, slots=True)
class Welcome:
    """CONNACK.

    Attributes:
        version: the one that the broker answers in. It may be 3.1.1, though 5 was offered.
        code: 0 is yes.
        keepalive_s: the broker's own keep-alive, seconds; None when it takes ours.
        identifiers: whether subscriptions may have identifiers.
    """

    version: int
    code: int
    keepalive_s: int | None = None
    identifiers: bool = False


@dataclass(frozen=True, slots=True)
class Publish:
    """A message. `identifiers` are those of the subscriptions it is for; empty when the broker does not say."""

    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False
    packet_id: int = 0
    identifiers: tuple[int, ...] = ()


class Reader:
    """Reads a packet's body from its start. Every method raises `Malformed` where the body ends too early."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, count: int) -> bytes:
        taken = self._data[self._at : self._at + count]
        if len(taken) < count:
            raise Malformed("packet ends early")
        self._at += count
        return taken

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size))

    def variable(self) -> int:
        value = 0
        for shift in (0, 7, 14, 21):
            byte = self.number(1)
            value |= (byte & 0x7F) << shift
            if byte < REFUSED:
                return value
        raise Malformed("a length has more than four bytes")

    def text(self) -> str:
        try:
            return self.take(self.number(2)).decode()
        except UnicodeDecodeError:
            raise Malformed("a string is not UTF-8") from None

    def rest(self) -> bytes:
        return self.take(len(self._data) - self._at)

    def properties(self) -> list[tuple[int, int]]:
        """Identifiers and values of the properties that are numbers; the others are read and left out."""
        body, found = Reader(self.take(self.variable())), []
        while body._at < len(body._data):
            identifier = body.variable()
            size = _PROPERTIES.get(identifier)
            if size is None:
                raise Malformed("a property is unknown")
            if size in (_BINARY, _PAIR):
                for _ in range(-size - 1):
                    body.take(body.number(2))
            else:
                found.append((identifier, body.variable() if size == _VARIABLE else body.number(size)))
        return found


def connect(version: int, client_id: str, keepalive_s: int, username: str | None, password: str | None) -> bytes:
    """CONNECT [3.1] of a session that begins empty and ends with its connection."""
    # Version 5 has no password-only rule; 3.1.1 allows no password without a user name, and we never have one.
    flags = 0x02 | (0x80 if username is not None else 0) | (0x40 if password is not None else 0)
    body = _text("MQTT") + bytes((version, flags)) + keepalive_s.to_bytes(2) + _none(version) + _text(client_id)
    return _packet(0x10, body + b"".join(_text(text) for text in (username, password) if text is not None))


def subscribe(version: int, packet_id: int, topic_filter: str, qos: int, identifier: int) -> bytes:
    """SUBSCRIBE [3.8]. `identifier` is sent in version 5 only; 0 is none."""
    properties = _none(version)
    if version == V5 and identifier:
        named = bytes((_SUBSCRIPTION_ID,)) + _variable(identifier)
        properties = _variable(len(named)) + named
    options = qos | (_RETAINED_IF_NEW if version == V5 else 0)
    return _packet(0x82, packet_id.to_bytes(2) + properties + _text(topic_filter) + bytes((options,)))


def unsubscribe(version: int, packet_id: int, topic_filter: str) -> bytes:
    """UNSUBSCRIBE [3.10]."""
    return _packet(0xA2, packet_id.to_bytes(2) + _none(version) + _text(topic_filter))


def puback(packet_id: int) -> bytes:
    """PUBACK [3.4]."""
    return _packet(0x40, packet_id.to_bytes(2))


def read_connack(offered: int, body: bytes) -> Welcome:
    """CONNACK [3.2]. A broker that knows only 3.1.1 answers in its form, whatever was offered. Raises `Malformed`."""
    reader = Reader(body)
    reader.take(1)
    code = reader.number(1)
    if offered == V311 or len(body) == 2:
        return Welcome(V311, code)
    properties = dict(reader.properties())
    ids = bool(properties.get(_IDS_AVAILABLE, 1))
    return Welcome(V5, code, properties.get(_SERVER_KEEP_ALIVE), ids)


def read_publish(version: int, flags: int, body: bytes) -> Publish:
    """PUBLISH [3.3]; `flags` is the low half of its first byte. Raises `Malformed`."""
    reader, qos = Reader(body), flags >> 1 & 3
    if qos > 1:
        raise Malformed("QoS 2 was not asked for")
    topic = reader.text()
    if not topic:  # also an alias, which was not allowed
        raise Malformed("no topic")
    packet_id = reader.number(2) if qos else 0
    found = reader.properties() if version == V5 else []
    identifiers = tuple(value for name, value in found if name == _SUBSCRIPTION_ID)
    return Publish(topic, reader.rest(), qos, bool(flags & 1), packet_id, identifiers)


def read_acknowledgement(version: int, body: bytes) -> tuple[int, int]:
    """SUBACK [3.9] or UNSUBACK [3.11] of one filter: packet id, and the code; 0 where there is none. Raises
    `Malformed`."""
    reader = Reader(body)
    packet_id = reader.number(2)
    if version == V5:
        reader.properties()
    codes = reader.rest()
    return packet_id, codes[0] if codes else 0


def _packet(first: int, body: bytes) -> bytes:
    return bytes((first,)) + _variable(len(body)) + body


def _variable(number: int) -> bytes:
    found = bytearray()
    while True:
        number, low = number >> 7, number & 0x7F
        found.append(low | REFUSED if number else low)
        if not number:
            return bytes(found)


def _text(text: str) -> bytes:
    """Raises `ValueError`: a text that MQTT cannot carry."""
    raw = text.encode()
    if len(raw) > 0xFFFF:
        raise ValueError("longer than 65535 bytes")
    return len(raw).to_bytes(2) + raw


def _none(version: int) -> bytes:
    """No properties, where a packet of this version has room for some."""
    return b"\0" if version == V5 else b""
