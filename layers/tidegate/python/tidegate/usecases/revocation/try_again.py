"""What becomes of a task that failed: it is tried again later, or lies in the dead-letter queue.

The task counts its own tries. The queue counts receives, and an invocation that was throttled for long uses one up
without a try. So the queue's count is generous, and is left for what never gets here.
"""

from __future__ import annotations

from dataclasses import replace

from tidegate.domain.revocations import AGAIN_AFTER_S, OF_THE_SCHEDULE, Task
from tidegate.ports.revocation import BuriedTasks, RevalidationQueue


class TryAgain:
    """Sees to a task that failed."""

    def __init__(self, *, tasks: RevalidationQueue, buried: BuriedTasks) -> None:
        self._tasks = tasks
        self._buried = buried

    def __call__(self, task: Task) -> None:
        """Repeating is harmless, as is every task: who dies after this has the task twice.

        Raises:
            Unavailable: a queue did not answer. The message has to stay in the queue that it came from.
        """
        if task.kind in OF_THE_SCHEDULE:
            return  # the next one is seconds away, and knows nothing of this one
        if task.tries < len(AGAIN_AFTER_S):
            self._tasks.queue(replace(task, tries=task.tries + 1), AGAIN_AFTER_S[task.tries])
        else:
            self._buried.bury(replace(task, tries=0))
