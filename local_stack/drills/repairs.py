"""What a drill broke, on disk, so that it is put right whatever becomes of the drill.

Invariant of this file: whatever is broken is noted before it is broken, and is taken off the list after it was put
right. So a drill that is killed leaves a list, and the next run works it off. Putting right what is right is harmless.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from local_stack.processes import replace_text

#: Puts one thing right, given what was noted of it.
Mend = Callable[[Mapping[str, str]], None]


class NotPutRight(Exception):
    """Something could not be put right and is still on the list. The message names it, and the reason."""


@dataclass(frozen=True, slots=True)
class Noted:
    """One thing that is to be put right.

    Attributes:
        kind: says who puts it right.
        what: what is then right again, for people: "the event source mapping is enabled".
        of: what whoever puts it right has to know.
    """

    kind: str
    what: str
    of: Mapping[str, str]


class Repairs:
    """The list, and those who work it off."""

    def __init__(self, file: Path, mends: Mapping[str, Mend]) -> None:
        """
        Args:
            file: where the list is; there is none while nothing is broken.
            mends: by kind. Each has to be harmless where nothing is broken.
        """
        self._file = file
        self._mends = mends

    def note(self, kind: str, what: str, **of: str) -> None:
        """Has to come before what is noted is broken."""
        self._write([*self.left(), Noted(kind, what, of)])

    def left(self) -> list[Noted]:
        """What is still to be put right."""
        if not self._file.exists():
            return []
        return [Noted(**each) for each in json.loads(self._file.read_text())]

    def put_right(self, *, but: str = "") -> list[str]:
        """Work the list off, the last entry first. Returns what is right again, in words.

        Args:
            but: a kind that stays on the list.

        Raises:
            NotPutRight: one failed. The others were put right all the same.
        """
        done, failed = [], []
        for noted in reversed([each for each in self.left() if each.kind != but]):
            try:
                self._mends[noted.kind](noted.of)
            except Exception as error:  # whatever it is, the others are put right
                failed.append(f"{noted.what}: {type(error).__name__}: {error}")
            else:
                self._write([each for each in self.left() if each != noted])
                done.append(noted.what)
        if failed:
            raise NotPutRight("; ".join(failed))
        return done

    def _write(self, noted: list[Noted]) -> None:
        """The whole list at once: who is killed here leaves the one before, or this one."""
        if not noted:
            self._file.unlink(missing_ok=True)
            return
        replace_text(self._file, json.dumps([asdict(each) for each in noted]))
