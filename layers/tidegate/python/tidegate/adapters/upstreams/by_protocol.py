"""All transports behind one interface."""

from __future__ import annotations

from collections.abc import AsyncIterator

from tidegate.adapters.upstreams.aiohttp_streams import AiohttpUpstreams
from tidegate.adapters.upstreams.mqtt_brokers import MqttUpstreams
from tidegate.ports.relay import MqttRequest, UpstreamEvent, UpstreamRequest, Upstreams


class UpstreamsByProtocol(Upstreams):
    """Hands each request to the adapter of its protocol."""

    def __init__(self, http: AiohttpUpstreams, mqtt: MqttUpstreams) -> None:
        self._http = http
        self._mqtt = mqtt

    def open(self, request: UpstreamRequest | MqttRequest, last_id: str) -> AsyncIterator[UpstreamEvent]:
        if isinstance(request, MqttRequest):
            return self._mqtt.open(request, last_id)
        return self._http.open(request, last_id)

    async def close(self) -> None:
        await self._http.close()
        await self._mqtt.close()
