"""Notice that a credential was given another secret while upstreams are connected with it.

Invariant of this file: a credential that cannot be read changes nothing. "Could not be checked" is not "changed".
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable

from tidegate.domain.subscriptions import Stream
from tidegate.errors import Unavailable
from tidegate.ports.profiles import ProfileStore
from tidegate.ports.runtime import Observer

#: How often the credentials of the running upstreams are read, seconds. Each costs one read, however many use it.
CHECK_S = 5.0
#: Credentials that are read at the same time.
_AT_ONCE = 8

#: Takes the revision of the stored secret; None when the profile is gone.
Note = Callable[[int | None], None]


class CheckCredentials:
    """Reads the credentials of a worker's upstreams."""

    def __init__(self, *, profiles: ProfileStore, observer: Observer) -> None:
        self._profiles = profiles
        self._observer = observer

    async def __call__(self, upstreams: Iterable[tuple[Stream, Note]]) -> None:
        """Read each credential once, and tell the upstreams that use it which secret is stored."""
        users: dict[str, list[Note]] = defaultdict(list)
        for stream, note in upstreams:
            profile_id = (stream.intent or {}).get("credentialProfileId")
            if profile_id is not None:
                users[str(profile_id)].append(note)
        turns = asyncio.Semaphore(_AT_ONCE)
        await asyncio.gather(*(self._check(profile_id, notes, turns) for profile_id, notes in users.items()))

    async def _check(self, profile_id: str, notes: list[Note], turns: asyncio.Semaphore) -> None:
        try:
            async with turns:
                profile = await asyncio.to_thread(self._profiles.credential, profile_id)
        except Unavailable:
            self._observer.count("credential_checks_failed")
            return
        except Exception as error:  # one that cannot be understood must not keep the others from being checked
            self._observer.fault("credential not checked", error, profile=profile_id)
            return
        for note in notes:
            note(None if profile is None else profile.secret_revision)
