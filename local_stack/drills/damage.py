"""What a drill can break on the running stack. Each piece is noted first, with who puts it right."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from local_stack.checks import expect
from local_stack.deployment import client
from local_stack.device_queue import waiting
from local_stack.drills.drill import MADE
from local_stack.drills.repairs import Mend, Repairs
from local_stack.feed import delete_event, newest_event
from local_stack.relay_workers import REVALIDATION, SCHEDULE, function_name
from local_stack.schedule import nothing_queued, set_state
from local_stack.smoke.client import Smoke
from tidegate.tables import LIMITERS, REVOCATIONS, Table

#: Name of the policies that drills give to roles.
_POLICY = "drill"
#: In the target of every task that a drill queues, so that it is told from others.
MARK = "drill-poison"
#: Most messages in one receive, and for how long others do not see what was received, seconds.
_RECEIVED, _HIDDEN_S = 10, 2


class Damage:
    """What can be broken."""

    def __init__(self, smoke: Smoke, repairs: Repairs) -> None:
        self._stack = smoke.stack
        self._smoke = smoke
        self._repairs = repairs
        config = smoke.config()
        self._functions, self._queues = client(config, "lambda"), client(config, "sqs")
        self._roles, self._tables = client(config, "iam"), client(config, "dynamodb")
        self._schedules = client(config, "scheduler")

    def refuse_limiters(self) -> None:
        """No function may ask the limiters table any more: each of its calls is answered `AccessDeniedException`."""
        document = {
            "Effect": "Deny",
            "Action": "dynamodb:*",
            "Resource": f"*{self._stack['tables'][LIMITERS.variable]}",
        }
        policy = json.dumps({"Version": "2012-10-17", "Statement": [document]})
        roles = {
            each["Role"].rpartition("/")[2]
            for each in self._all_functions()
            if LIMITERS.variable in each.get("Environment", {}).get("Variables", {})
        }
        self._repairs.note("policy", "functions may ask the limiters table", roles=" ".join(sorted(roles)))
        for role in roles:
            self._roles.put_role_policy(RoleName=role, PolicyName=_POLICY, PolicyDocument=policy)

    def switch_off_stream(self, table: Table) -> None:
        """The table's stream leads nowhere."""
        name = self._stack["tables"][table.variable]
        mappings = self._functions.list_event_source_mappings()["EventSourceMappings"]
        found = [each["UUID"] for each in mappings if f":table/{name}/" in each["EventSourceArn"]]
        expect(found, f"the table {table.name} has no event source mapping")
        for mapping in found:
            self._repairs.note("mapping", f"the event source mapping of the table {table.name} is on", mapping=mapping)
            self._functions.update_event_source_mapping(UUID=mapping, Enabled=False)

    def pause_schedule(self) -> None:
        """No schedule fires, and what it queued for the minute is dropped."""
        for schedule in self._schedules.list_schedules()["Schedules"]:
            self._repairs.note("schedule", "the schedule fires", schedule=schedule["Name"])
            set_state(self._schedules, schedule["Name"], "DISABLED")
        self._queues.purge_queue(QueueUrl=self._stack["queues"]["REVALIDATION_QUEUE_URL"])
        nothing_queued(self._smoke.config(), self._stack)

    def redirect(self, handler: str, variable: str, url: str) -> None:
        """The function with this handler finds a service elsewhere. `variable` is not set otherwise."""
        name = function_name(self._functions, handler)
        self._repairs.note("variable", f"{handler} finds its service", function=name, variable=variable)
        _configure(self._functions, name, lambda variables: {**variables, variable: url})

    def forget_newest_event(self) -> None:
        """The newest event of the feed is gone, as one that is past its retention."""
        table = self._stack["tables"][REVOCATIONS.variable]
        newest = newest_event(self._tables, table)
        self._repairs.note("event", "the event is in the feed", table=table, item=json.dumps(newest))
        delete_event(self._tables, table, newest)

    def queue_poison(self, *bodies: str) -> None:
        """Queue messages for revalidation as they are. Each has to have `MARK` in it."""
        queue = self._stack["queues"]["REVALIDATION_QUEUE_URL"]
        self._repairs.note("poison", "no task of the drill is in a queue", queue=queue, dead=self.dead_queue())
        for body in bodies:
            expect(MARK in body, f"not told from others: {body}")
            self._queues.send_message(QueueUrl=queue, MessageBody=body)

    # --- what a drill makes, and where it looks ------------------------------------------------------------

    def note_made(self) -> None:
        """Note what the drill made by the API until now. What it made before it broke anything can be deleted last."""
        for role, path in self._smoke.made():
            self._repairs.note(MADE, f"{path} is deleted", role=role, path=path)

    def dead_queue(self) -> str:
        """URL of the dead-letter queue of revalidation."""
        worker = self._functions.get_function_configuration(FunctionName=function_name(self._functions, REVALIDATION))
        return str(worker["Environment"]["Variables"]["REVALIDATION_DEAD_QUEUE_URL"])

    def dead_letters(self) -> int:
        """How many messages are in the dead-letter queue of revalidation."""
        return waiting(self._queues, self.dead_queue())

    def poll_interval_s(self) -> float:
        """How often the feed is polled, seconds."""
        schedule = self._functions.get_function_configuration(FunctionName=function_name(self._functions, SCHEDULE))
        return int(schedule["Environment"]["Variables"]["REALTIME_PUBLIC_REVALIDATE_INTERVAL_MS"]) / 1000

    def logged(self, handler: str, since_ms: int) -> list[dict[str, Any]]:
        """The lines that the function with this handler logged since (epoch milliseconds) and that are JSON.

        A function that still runs has logged nothing: the emulator keeps its lines until it ends.
        """
        logs = client(self._smoke.config(), "logs")
        found = self._functions.get_function_configuration(FunctionName=function_name(self._functions, handler))
        pages = logs.get_paginator("filter_log_events").paginate(
            logGroupName=found["LoggingConfig"]["LogGroup"], startTime=since_ms
        )
        return [line for page in pages for event in page["events"] for line in _json(event["message"])]

    def _all_functions(self) -> Iterator[dict[str, Any]]:
        for page in self._functions.get_paginator("list_functions").paginate():
            yield from page["Functions"]


def repairs_of(smoke: Smoke) -> Repairs:
    """The list of what drills broke on this stack, and who puts it right."""
    config = smoke.config()
    functions, queues = client(config, "lambda"), client(config, "sqs")
    mends: dict[str, Mend] = {
        "policy": partial(_delete_policy, client(config, "iam")),
        "mapping": lambda of: functions.update_event_source_mapping(UUID=of["mapping"], Enabled=True),
        "schedule": partial(_resume, client(config, "scheduler"), smoke, functions),
        "variable": partial(_remove_variable, functions),
        "event": lambda of: client(config, "dynamodb").put_item(TableName=of["table"], Item=json.loads(of["item"])),
        "poison": partial(_remove_poison, queues, smoke, functions),
        MADE: partial(_delete, smoke),
    }
    return Repairs(Path(smoke.stack["state"]) / "drill.json", mends)


def _delete_policy(roles: Any, of: Mapping[str, str]) -> None:
    for role in of["roles"].split():
        with suppress(roles.exceptions.NoSuchEntityException):
            roles.delete_role_policy(RoleName=role, PolicyName=_POLICY)


def _resume(schedules: Any, smoke: Smoke, functions: Any, of: Mapping[str, str]) -> None:
    set_state(schedules, of["schedule"], "ENABLED")
    _ask_anew(smoke, functions)


def _ask_anew(smoke: Smoke, functions: Any) -> None:
    """What the schedule had asked for in this minute was purged: it asks for all of it once more."""
    nothing_queued(smoke.config(), smoke.stack)
    functions.invoke(FunctionName=function_name(functions, SCHEDULE), InvocationType="Event", Payload=b"{}")


def _remove_variable(functions: Any, of: Mapping[str, str]) -> None:
    gone = of["variable"]
    _configure(
        functions, of["function"], lambda variables: {name: text for name, text in variables.items() if name != gone}
    )


def _configure(functions: Any, name: str, changed: Any) -> None:
    """Give a function other variables, if they are others: the emulator ends the workers of a function that is."""
    was = functions.get_function_configuration(FunctionName=name)["Environment"]["Variables"]
    if (wanted := changed(was)) != was:
        functions.update_function_configuration(FunctionName=name, Environment={"Variables": wanted})
        functions.get_waiter("function_updated_v2").wait(FunctionName=name)


def _remove_poison(queues: Any, smoke: Smoke, functions: Any, of: Mapping[str, str]) -> None:
    """Purge the queue, because what waits there for its next try cannot be received. From the dead-letter queue take
    only what a drill put there."""
    queues.purge_queue(QueueUrl=of["queue"])
    _ask_anew(smoke, functions)
    deadline = time.monotonic() + 2 * _HIDDEN_S
    while time.monotonic() < deadline:
        asked = {"QueueUrl": of["dead"], "MaxNumberOfMessages": _RECEIVED, "VisibilityTimeout": _HIDDEN_S}
        received = queues.receive_message(**asked).get("Messages", ())
        if not received:
            return
        for each in received:
            if MARK in each["Body"]:
                queues.delete_message(QueueUrl=of["dead"], ReceiptHandle=each["ReceiptHandle"])


def _delete(smoke: Smoke, of: Mapping[str, str]) -> None:
    status = smoke.user(of["role"]).request("DELETE", of["path"]).status_code
    expect(status in (204, 404), f"{of['path']} was answered {status}")


def _json(message: str) -> Iterator[dict[str, Any]]:
    for line in message.splitlines():
        with suppress(ValueError):
            found = json.loads(line)
            if isinstance(found, dict):
                yield found
