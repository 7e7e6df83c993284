"""Tasks of revalidation that fail however often they are tried."""

from __future__ import annotations

import asyncio
import json

from local_stack.checks import expect, settled
from local_stack.config import StackError
from local_stack.drills.damage import MARK
from local_stack.drills.drill import Drill, Running
from local_stack.drills.looks import LOGGED_S, ended, now_ms, receive, rotated, watched
from local_stack.relay_workers import REVALIDATION
from tidegate.domain.revocations import AGAIN_AFTER_S

#: The longest that a message may take through the queue and the worker, seconds.
_TASK_S = 15.0


async def drill(running: Running) -> None:
    smoke, damage = running.smoke, running.damage
    if there := damage.dead_letters():
        raise StackError(
            f"{there} messages are dead letters already, which the drill would redrive: see to them first."
        )
    seen, since_ms = await watched(running), now_ms()
    # A slot's name ends in its number, and this one does not: no try can succeed. All tries take half an hour, so
    # one of the tasks begins with the last.
    last = len(AGAIN_AFTER_S)
    damage.queue_poison(_slot("first", 0), _slot("last", last), f"{MARK} is no task")
    await running.expects("dead letters: a task after its last try, and one that cannot be read", _dead(running, 2))
    await running.expects(
        f"one that failed for the first time waits {AGAIN_AFTER_S[0]} s", _failed(running, since_ms, {1, last + 1})
    )
    asked = await rotated(seen)
    await running.expects("nobody waits behind them: a rotation ends the guest", ended(seen.guest, asked, _TASK_S))
    await running.expects("the owner is sent values", receive(smoke, seen.scene, seen.owner))
    since_ms = now_ms()
    await running.expects("an admin may redrive them", _redriven(running))
    await running.expects("what is redriven is tried from the beginning", _failed(running, since_ms, {1}))
    await running.expects("what cannot be read comes back", _dead(running, 1))
    await running.put_right()
    await running.expects("purged, no dead letter is left", _dead(running, 0))


def _slot(name: str, tries: int) -> str:
    return json.dumps({"kind": "slot", "target": f"{name} {MARK}", "tries": tries})


async def _dead(running: Running, count: int) -> str:
    await settled(lambda: running.damage.dead_letters() == count, _TASK_S, f"{count} dead letters")
    return f"{count} in the dead-letter queue"


async def _failed(running: Running, since_ms: int, wanted: set[int]) -> str:
    """The worker logged that tasks failed for so many times."""
    tries: set[int] = set()

    def there() -> bool:
        lines = running.damage.logged(REVALIDATION, since_ms)
        tries.update(line["tries"] for line in lines if line.get("message") == "revalidation failed")
        return tries >= wanted

    await settled(there, LOGGED_S, f"tries {sorted(wanted)} are logged; there are {sorted(tries)}")
    expect(tries == wanted, f"tries {sorted(tries)}")
    return f"`revalidation failed`, tries {', '.join(map(str, sorted(tries)))}"


async def _redriven(running: Running) -> str:
    path = "/api/operations/dead-letters/revalidation:redrive"
    answer = await asyncio.to_thread(running.smoke.user("admin").request, "POST", path)
    expect(answer.status_code == 200 and answer.json()["moved"] == 2, f"{answer.status_code} {answer.text}")
    return f"{answer.json()['moved']} moved"


DRILL = Drill("poisoned-task", "tasks that fail at every try are put into the queue of revalidation", 5, drill)
