"""The deployed relay's workers, as checks need to handle them: who holds a partition, other settings, sudden deaths."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from local_stack.config import Config
from local_stack.deployment import client
from local_stack.processes import Processes
from local_stack.schedule import paused
from tidegate.domain.minutes import RELAYS_S
from tidegate.domain.partitions import PARTITIONS, partition_of
from tidegate.domain.relay import CLAIM_AFTER_S, LEASE_S
from tidegate.domain.subscriptions import Stream
from tidegate.providers.control_plane import ControlPlaneProviders

RELAY, MESSAGES, API = "relay.worker", "gateway_connect.messages", "api.main"
CONNECT, BRIDGE, CATCH_UP = "gateway_connect.connect", "mqtt_bridge.bridge", "mqtt_bridge.catch_up"
SCHEDULE, REVALIDATION = "revalidate.schedule", "revalidate.worker"
#: How long functions that start anew may take to the first message on the local stack, seconds.
START_S = 30.0
#: The same where the worker before was killed: its lease ends, and somebody looks who does not renew.
REPLACED_S = LEASE_S + CLAIM_AFTER_S + RELAYS_S + START_S


class LocalRelayWorkers:
    """The relay of a running stack."""

    def __init__(self, stack: Mapping[str, Any]) -> None:
        self._stack = stack
        config = Config(endpoint=stack["emulator_url"])
        control_plane = ControlPlaneProviders(
            {**config.aws_environment(), **stack["tables"], "TIDEGATE_ENV": "development"}
        )
        self._streams = control_plane.streams
        self._leases = control_plane.relay_leases
        self._functions = client(config, "lambda")
        self._processes = Processes(Config(state=Path(stack["state"])))
        self._version: str | None = None

    def partition_of(self, url: str) -> int:
        """The partition of the registered stream that connects to this URL."""
        return next(partition_of(stream) for stream in self._of_url(url))

    def connected(self, url: str) -> list[bool]:
        """Of every registered stream that connects to this URL, whether it is connected."""
        return [stream.connected for stream in self._of_url(url)]

    def _of_url(self, url: str) -> list[Stream]:
        return [stream for stream in self._streams.of_source(None).streams if (stream.intent or {}).get("url") == url]

    def fence(self, partition: int) -> int:
        """How often the partition changed hands; 0 while nobody holds it."""
        lease = self._leases.current(partition)
        return 0 if lease is None else lease.fence

    def kill(self) -> int:
        """End every worker without a word, by its process's id. Returns how many processes there were.

        Only children of the emulator that this stack started, which run the relay's function, are killed; where the
        emulator is another's, none.
        """
        name = self._name(RELAY)
        found = [
            pid
            for emulator in self._processes.alive()
            if emulator.name == "emulator"
            for pid, command in self._processes.children(emulator)
            if name in command
        ]
        for pid in found:
            os.kill(pid, signal.SIGKILL)
        return len(found)

    def renew(self) -> None:
        """After the function was changed, which ended its workers: start others now, not when the leases are over."""
        self._release()
        self.schedule()

    def schedule(self) -> None:
        """What happens each minute, now."""
        self._functions.invoke(FunctionName=self._name(SCHEDULE), InvocationType="Event", Payload=b"{}")

    @contextmanager
    def staying(self) -> Iterator[None]:
        """Workers that go on with the settings they were started with while the function is given others.

        On AWS every worker does; the emulator ends those of a function that is changed, but not those of a version.
        So the version's workers must be the ones that hold the partitions. Meanwhile the schedule is paused: it starts
        workers of the function itself, which are as good to the version's ones, and end with the next change.
        """
        with paused(self._stack), self._of_a_version():
            yield

    @contextmanager
    def _of_a_version(self) -> Iterator[None]:
        was = self._functions.get_function_configuration(FunctionName=self._name(RELAY))
        name = was["FunctionName"]
        self._version = self._functions.publish_version(FunctionName=name)["Version"]
        try:
            self._configure(name, was["Environment"]["Variables"], was["Timeout"])  # ends the workers there are
            self._release()
            version = {"FunctionName": name, "Qualifier": self._version, "InvocationType": "Event"}
            for partition in range(PARTITIONS):
                self._functions.invoke(**version, Payload=json.dumps({"partition": partition}).encode())
            yield
        finally:
            self._functions.delete_function(FunctionName=name, Qualifier=self._version)
            self._version = None
            self._release()

    @contextmanager
    def settings(self, variables: Mapping[str, str], *handlers: str, timeout_s: int | None = None) -> Iterator[None]:
        """Give functions other settings, and the relay another time limit; all is as before afterwards."""
        kept = {name: self._functions.get_function_configuration(FunctionName=self._name(name)) for name in handlers}
        try:
            for name, was in kept.items():
                timeout = timeout_s if name == RELAY and timeout_s else was["Timeout"]
                self._configure(was["FunctionName"], {**was["Environment"]["Variables"], **variables}, timeout)
            if RELAY in kept and self._version is None:
                self._release()
            yield
        finally:
            for was in kept.values():
                self._configure(was["FunctionName"], was["Environment"]["Variables"], was["Timeout"])
            if RELAY in kept:
                self._release()

    def _configure(self, name: str, variables: Mapping[str, str], timeout_s: int) -> None:
        environment = {"Variables": dict(variables)}
        self._functions.update_function_configuration(FunctionName=name, Environment=environment, Timeout=timeout_s)
        self._functions.get_waiter("function_updated_v2").wait(FunctionName=name)

    def _release(self) -> None:
        """The emulator ends running workers of a function that is changed, which AWS does not: their leases would only
        keep the next ones waiting."""
        for partition in range(PARTITIONS):
            lease = self._leases.current(partition)
            if lease is not None:
                self._leases.release(lease)

    def _name(self, handler: str) -> str:
        return function_name(self._functions, handler)


def function_name(functions: Any, handler: str) -> str:
    """The deployed name of the function with this handler, such as `api.main`. `functions` is a client of Lambda.

    Raises:
        LookupError: no function has it.
    """
    pages = functions.get_paginator("list_functions").paginate()
    handlers = {each["Handler"]: str(each["FunctionName"]) for page in pages for each in page["Functions"]}
    name = handlers.get(f"functions.{handler}.handler")
    if name is None:
        raise LookupError(f"no function has the handler functions.{handler}.handler; there are {sorted(handlers)}")
    return name
