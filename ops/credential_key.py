"""Re-encrypts the stored credentials of a stage under its newest credential key, while the stage is in use.

It keeps nothing: what is left to do is read from the stored secrets. So it may end at any point, and several may run at
once. A secret is replaced by another encryption of itself, and only if it is still the one that was read. So a viewer
finds one that opens at every moment, and a secret that an admin sets meanwhile stays.

Invariant of this file: a secret is in no event and in no error.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

from ops.rotation import LOOK_S, Event, RotationRefused
from tidegate.adapters.aws.credential_cipher import KmsCredentialCipher
from tidegate.domain.credential_keys import SETTLED_S, CredentialKeys, Held, held, named
from tidegate.errors import SecretUnreadable
from tidegate.ports.profiles import ProfileStore
from tidegate.providers.control_plane import ControlPlaneProviders

NAME = "credential-key"
#: How many are re-encrypted between two reports.
_REPORT = 10
#: How many ids an error lists.
_LISTED = 10


def declared(outputs: Mapping[str, str]) -> CredentialKeys | None:
    """The keys of a deployed stage, by the outputs of its stack."""
    if "CredentialKeys" not in outputs:
        return None
    return CredentialKeys({int(number): arn for number, arn in json.loads(outputs["CredentialKeys"]).items()})


def of_stage(keys: CredentialKeys, environment: Mapping[str, str], stage: str) -> CredentialKey:
    """The keys of a stage with what is under them. `environment`: what a function of the stage sees of its tables."""
    providers = ControlPlaneProviders({**environment, "CREDENTIAL_KEY_ID": keys.arns[keys.newest]})
    return CredentialKey(keys, providers.profiles, providers.cipher, f"infra/stages/{stage}.json")


class CredentialKey:
    """The credential keys of a stage, and what is under them."""

    def __init__(
        self, keys: CredentialKeys, profiles: ProfileStore, cipher: KmsCredentialCipher, stage_file: str
    ) -> None:
        """
        Args:
            cipher: encrypts with the newest of `keys`.
            stage_file: what messages name.
        """
        self.keys = keys
        self._profiles = profiles
        self._cipher = cipher
        self._stage_file = stage_file

    def held(self) -> Held:
        """What is under which key. KMS is not asked. Raises `Unavailable`."""
        return held(
            self.keys, ((each, self._cipher.key_of(sealed)) for each, sealed in self._profiles.sealed_secrets())
        )

    def run(self, report: Callable[[Event], None], sleep: Callable[[float], None], *, wait: bool = True) -> bool:
        """Re-encrypt what is not under the newest key, and say whether the older keys may be dropped.

        Args:
            wait: False does what may be done now, and then ends.

        Returns:
            False when there is something left to wait for.

        Raises:
            RotationRefused: there is nothing to do, or an older key is still needed.
            Unavailable: the store or KMS did not answer. What was done stays done.
        """
        now = self.held()
        if not now.to_do and not self.keys.older:
            raise RotationRefused(
                f"all {now.total} credentials are under {named([self.keys.newest])}, the only one; to rotate it, add "
                f"the next number to `credential_keys` in {self._stage_file}, deploy, and run this again"
            )
        unreadable = self._pass(now, report)
        if self.keys.older:
            left = float(SETTLED_S)
            while left > 0:
                report(Event("wait", "until requests from before the last deployment have ended", left))
                if not wait:
                    return False
                sleep(min(LOOK_S, left))
                left -= LOOK_S
        while set((now := self.held()).to_do) - unreadable.keys():
            unreadable |= self._pass(now, report)
        if now.to_do:
            raise RotationRefused(self._needed(now, unreadable))
        report(Event("done", self._all_done(now)))
        return True

    def _pass(self, now: Held, report: Callable[[Event], None]) -> dict[str, str]:
        """Re-encrypt once all that is to do. Returns the ids of those that KMS does not open, with its reason."""
        total = len(now.to_do)
        unreadable: dict[str, str] = {}
        report(Event("begin", f"{total} of {now.total} credentials are not under {named([self.keys.newest])}"))
        for done, profile_id in enumerate(now.to_do, 1):
            try:
                self._reencrypt(profile_id)
            except SecretUnreadable as error:
                unreadable[profile_id] = getattr(error.__cause__, "code", "damaged")
            if done % _REPORT == 0 or done == total:
                report(Event("reencrypt", f"{done - len(unreadable)} of {total} were re-encrypted"))
        return unreadable

    def _reencrypt(self, profile_id: str) -> None:
        """When the secret is replaced meanwhile, whoever did that was first, and the next look finds what is left."""
        sealed = self._profiles.sealed_secret(profile_id)
        if sealed is None or self.keys.number(self._cipher.key_of(sealed)) == self.keys.newest:
            return
        secret = self._cipher.decrypt(profile_id, sealed)
        self._profiles.replace_sealed(profile_id, sealed, self._cipher.encrypt(profile_id, secret))

    def _needed(self, now: Held, unreadable: Mapping[str, str]) -> str:
        listed = ", ".join(f"{each} ({unreadable[each]})" for each in now.to_do[:_LISTED])
        more = f", and {len(now.to_do) - _LISTED} more" if len(now.to_do) > _LISTED else ""
        keep = f"; keep {named(self.keys.older)} in `credential_keys`" if self.keys.older else ""
        return (
            f"{len(now.to_do)} of {now.total} credentials are not under {named([self.keys.newest])} and cannot be "
            f"opened: {listed}{more}{keep}; give these profiles their secret anew, or delete them, and run this again"
        )

    def _all_done(self, now: Held) -> str:
        text = f"all {now.total} credentials are under {named([self.keys.newest])}"
        if not self.keys.older:
            return text
        return f"{text}; {named(self.keys.older)} may be dropped from `credential_keys` in {self._stage_file}"
