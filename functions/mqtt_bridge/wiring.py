"""Builds what the bridge and the catch-up handler run, from providers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from time import sleep
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from tidegate.adapters.json_observer import JsonObserver
    from tidegate.domain.subscriptions import LastValue, Stream
    from tidegate.providers.delivery import DeliveryProviders
    from tidegate.usecases.delivery.audiences import Audiences
    from tidegate.usecases.delivery.bridge import BatchedValue, Bridge
    from tidegate.usecases.delivery.catch_up import CatchUp
    from tidegate.usecases.delivery.crowds import SendPart
    from tidegate.usecases.delivery.fan_out import FanOut
    from tidegate.usecases.delivery.interval import Interval
    from tidegate.usecases.delivery.keep_history import KeepEach
    from tidegate.usecases.delivery.paced_queue import Pace
    from tidegate.usecases.delivery.senders import OneShotSender, Patience
    from tidegate.usecases.delivery.together import Together

#: How long an invocation waits for sends, seconds. It may run for 30 (`domain.time_limits`): a message that is not
#: answered takes three, and what failed eight.
WAIT_S = 15.0
#: The same for a part of a crowd, which may run for 120. With a quota of 5,000 a second, 100,000 viewers take 20.
CROWD_WAIT_S = 90.0


class BridgeServices(NamedTuple):
    """What the bridge's handler runs."""

    bridge: Bridge
    observer: JsonObserver


def bridge_services(env: Mapping[str, str] | None = None) -> BridgeServices:
    from tidegate.providers.delivery import DeliveryProviders
    from tidegate.usecases.delivery.audiences import Audiences
    from tidegate.usecases.delivery.bridge import Bridge
    from tidegate.usecases.delivery.fan_out import FanOut
    from tidegate.usecases.delivery.interval import Interval
    from tidegate.usecases.delivery.senders import Patience
    from tidegate.usecases.delivery.settle import Settle

    container = DeliveryProviders(env)
    settings = container.settings
    read = container.subscriptions.audience
    audiences = Audiences(lambda stream_key: read(stream_key, or_first_shard=True), container.clock)
    per_second = settings.max_updates_per_second
    pace, carry, interval = container.new_pace(), None, None
    patience = None if pace is None else Patience(container.clock, WAIT_S)
    send = _one_shot(container, audiences, pace, patience)
    if per_second:
        interval = Interval(
            last_values=container.last_values,
            per_second=per_second,
            clock=container.clock,
            sleep=sleep,
        )
    if per_second and pace is not None:
        from tidegate.usecases.delivery.carry import Carry

        carry = Carry(
            send, container.last_values, per_second, sleep, container.clock, container.ids, container.observer
        )
    fan_out = FanOut(
        audiences=audiences,
        last_values=container.last_values,
        send=send,
        max_message_bytes=settings.max_message_bytes,
        clock=container.clock,
        observer=container.observer,
        interval=interval,
        crowds=container.crowds,
        keep=_keep_history(container),
        carry=carry,
    )
    bridge = Bridge(
        enabled=settings.realtime_enabled and settings.mqtt_enabled,
        max_payload_bytes=settings.mqtt_max_message_bytes,
        streams=container.streams,
        fan_out=fan_out,
        settle=Settle(
            last_values=container.last_values,
            fan_out=fan_out,
            catch_up=container.failure_handler.or_fail,
            clock=container.clock,
            observer=container.observer,
        ),
        clock=container.clock,
        observer=container.observer,
        patience=patience,
        together=None if interval is None else _together(container, fan_out, interval, send),
    )
    return BridgeServices(bridge, container.observer)


def _together(
    container: DeliveryProviders, fan_out: FanOut, interval: Interval, send: OneShotSender
) -> Callable[[Sequence[BatchedValue]], Sequence[BatchedValue]]:
    """Delivers the values of batches. It is built with the first of them, because few stages have batched topics."""

    @cache
    def built() -> Together:
        from tidegate.usecases.delivery.together import Together

        return Together(
            fan_out=fan_out,
            last_values=container.last_values,
            interval=interval,
            send=send,
            crowds=container.crowds,
            clock=container.clock,
            observer=container.observer,
        )

    return lambda values: built()(values)


class CrowdServices(NamedTuple):
    """What the handler of parts of crowds runs."""

    send_part: SendPart
    observer: JsonObserver


def crowd_services(env: Mapping[str, str] | None = None) -> CrowdServices:
    from tidegate.providers.delivery import DeliveryProviders
    from tidegate.usecases.delivery.audiences import Audiences
    from tidegate.usecases.delivery.crowds import SendPart, ShardSender
    from tidegate.usecases.delivery.fan_out import FanOut
    from tidegate.usecases.delivery.senders import Patience

    container = DeliveryProviders(env)
    pace = container.new_pace()
    patience = None if pace is None else Patience(container.clock, CROWD_WAIT_S)

    def sender_of(shard: int) -> ShardSender:
        read = container.subscriptions.audience_shard
        audiences = Audiences(lambda stream_key: read(stream_key, shard), container.clock)
        send = _one_shot(container, audiences, pace, patience)
        fan_out = FanOut(
            audiences=audiences,
            last_values=container.last_values,
            send=send,
            max_message_bytes=container.settings.max_message_bytes,
            clock=container.clock,
            observer=container.observer,
        )
        return ShardSender(fan_out, send)

    send_part = SendPart(
        last_values=container.last_values,
        sender_of=cache(sender_of),
        queue=container.crowds,
        patience=patience,
        clock=container.clock,
        observer=container.observer,
    )
    return CrowdServices(send_part, container.observer)


def _one_shot(
    container: DeliveryProviders, audiences: Audiences, pace: Pace | None, patience: Patience | None
) -> OneShotSender:
    from tidegate.usecases.delivery.fresh_access import FreshAccess
    from tidegate.usecases.delivery.senders import OneShotSender

    return OneShotSender(
        access=FreshAccess(container.gateway_access, audiences, container.clock),
        sender=container.sender,
        failure_handler=container.failure_handler,
        observer=container.observer,
        pace=pace,
        patience=patience,
    )


def _keep_history(container: DeliveryProviders) -> Callable[[Stream, LastValue], None]:
    """Keeps values of streams with a history. What it needs is imported with the first of them."""
    kept: list[KeepEach] = []

    def keep(stream: Stream, value: LastValue) -> None:
        if not kept:
            from tidegate.usecases.delivery.keep_history import KeepEach

            kept.append(KeepEach(lambda: container.history, container.clock))
        kept[0](stream, value)

    return keep


class CatchUpServices(NamedTuple):
    """What the catch-up handler runs."""

    catch_up: CatchUp
    observer: JsonObserver


def catch_up_services(env: Mapping[str, str] | None = None) -> CatchUpServices:
    from tidegate.providers.delivery import DeliveryProviders
    from tidegate.usecases.delivery.catch_up import CatchUp

    container = DeliveryProviders(env)
    catch_up = CatchUp(
        subscriptions=container.subscriptions,
        streams=container.streams,
        last_values=container.last_values,
        access=container.gateway_access,
        sender=container.sender,
        catch_ups=container.catch_ups,
        end_connection=container.end_connection,
        clock=container.clock,
        observer=container.observer,
        recover=lambda: container.recover,
        pace=container.new_pace(),
    )
    return CatchUpServices(catch_up, container.observer)
