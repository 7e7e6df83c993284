"""Credential and broker profiles. Admins create them so that secrets never reach a browser.

Invariants of this file: a secret that is stored is never given out again. A replacement is written only over the
revision that its author saw. Withdrawing a profile's public use, or deleting the profile, terminates the guests of the
datasources that use it. The profile and the change that its dashboards have to follow are written together; see
`follow_profiles`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TypeVar
from urllib.parse import urlsplit

from tidegate.domain.audit import AuditEvent
from tidegate.domain.ca_bundles import check_ca
from tidegate.domain.destinations import check_broker_url, check_destinations
from tidegate.domain.egress import EgressPolicy
from tidegate.domain.headers import check_basic, check_basic_user, check_name, check_value
from tidegate.domain.identifiers import MAX_IDENTIFIER, is_identifier
from tidegate.domain.profile_changes import ProfileChange
from tidegate.domain.profiles import BROKER, CREDENTIAL, BrokerProfile, CredentialProfile, CredentialType, Transport
from tidegate.domain.rights import check_admin, check_author
from tidegate.domain.users import User
from tidegate.errors import Conflict, InvalidInput, NotFound, SecretUnreadable, Unavailable
from tidegate.ports.control_plane import AuditLog, CredentialCipher, FollowRequests
from tidegate.ports.profiles import ProfileStore
from tidegate.ports.runtime import Clock, Ids
from tidegate.protocol.topics import check_filter
from tidegate.usecases.control_plane.follow_profiles import FollowProfiles
from tidegate.usecases.control_plane.from_what_stands import from_what_stands

P = TypeVar("P", CredentialProfile, BrokerProfile)

#: How long a request itself follows a change, seconds. The API must answer within 29.
_FOLLOW_S = 15
#: The parts of a secret that each type needs.
SECRET_KEYS = {
    CredentialType.NONE: (),
    CredentialType.BEARER: ("token",),
    CredentialType.BASIC: ("username", "password"),
    CredentialType.HEADER: ("headerValue",),
}


class ManageProfiles:
    """What admins do with profiles. Every change may raise `Conflict`, `InvalidInput`, `NotFound` and `Denied`."""

    def __init__(
        self,
        *,
        profiles: ProfileStore,
        follow: FollowProfiles,
        requests: FollowRequests,
        cipher: CredentialCipher,
        egress: EgressPolicy,
        audit: AuditLog,
        clock: Clock,
        ids: Ids,
    ) -> None:
        self._profiles = profiles
        self._follow = follow
        self._requests = requests
        self._cipher = cipher
        self._egress = egress
        self._audit = audit
        self._clock = clock
        self._ids = ids

    def credentials(self, actor: User) -> Sequence[CredentialProfile]:
        """All credential profiles, for those who may use them in a dashboard. Raises `Denied`."""
        check_author(actor)
        return self._profiles.credentials()

    def brokers(self, actor: User) -> Sequence[BrokerProfile]:
        """All broker profiles, for those who may use them in a dashboard. Raises `Denied`."""
        check_author(actor)
        return self._profiles.brokers()

    def create_credential(self, actor: User, wanted: CredentialProfile, secret: Mapping[str, str]) -> CredentialProfile:
        """Create a profile. Id and times of `wanted` are ignored and set here."""
        check_admin(actor)
        now_ms = self._now_ms()
        profile = replace(wanted, profile_id=self._ids.new_id(), created_at_ms=now_ms, updated_at_ms=now_ms)
        profile = self._checked_credential(profile, secret, secret.get("username", ""))
        sealed = self._cipher.encrypt(profile.profile_id, secret) if secret else None
        self._profiles.write_credential(None, profile, sealed)
        self._record("credential_profile.created", actor, profile, _moved((), profile.destinations))
        return profile

    def update_credential(
        self,
        actor: User,
        profile_id: str,
        wanted: CredentialProfile,
        secret: Mapping[str, str] | None,
        expected_revision: int,
    ) -> CredentialProfile:
        """Replace a profile. Without `secret` the stored secret stays. Its dashboards follow if they are affected.

        Raises `Conflict` when the profile no longer has the revision that the caller saw.
        """
        check_admin(actor)
        before = self._profiles.credential(profile_id)
        if before is None:
            raise NotFound("Credential profile not found")
        _check_revision(before, expected_revision)
        keys = dict.fromkeys(before.secret_keys, "kept") if secret is None else secret
        username = self._kept_user(before, wanted) if secret is None else secret.get("username", "")
        wanted = replace(wanted, secret_revision=before.secret_revision)
        after = self._checked_credential(_next(before, wanted, self._now_ms()), keys, username)
        moved = _moved(before.destinations, after.destinations)
        # Whoever was redirected to a destination that is taken away must not stay there. So every stream connects anew.
        if "destinationsRemoved" in moved:
            after = replace(after, connection_revision=before.connection_revision + 1)
        # The source stays the same, and so do its streams. The relay replaces the connections beneath them.
        retyped = after.type is not before.type
        if secret is not None or retyped or after.header_name != before.header_name:
            after = replace(after, secret_revision=before.secret_revision + 1)
        sealed = self._cipher.encrypt(profile_id, secret) if secret else None
        withdrawn = before.allow_public_use and not after.allow_public_use
        # Not every datasource can be used with every type, so a dashboard may lose or get an intent.
        change = _change(CREDENTIAL, after, withdrawn) if withdrawn or retyped or moved else None
        self._profiles.write_credential(before, after, sealed, change)
        self._record("credential_profile.updated", actor, after, moved)
        self._follow_now(change)
        return after

    def create_broker(self, actor: User, wanted: BrokerProfile) -> BrokerProfile:
        """Create a profile. Id and times of `wanted` are ignored and set here."""
        check_admin(actor)
        now_ms = self._now_ms()
        profile = replace(wanted, profile_id=self._ids.new_id(), created_at_ms=now_ms, updated_at_ms=now_ms)
        profile = self._checked_broker(profile)
        self._profiles.write_broker(None, profile)
        self._record("broker_profile.created", actor, profile)
        return profile

    def update_broker(
        self, actor: User, profile_id: str, wanted: BrokerProfile, expected_revision: int
    ) -> BrokerProfile:
        """Replace a profile. Its dashboards follow if they are affected.

        Raises `Conflict` when the profile no longer has the revision that the caller saw.
        """
        check_admin(actor)
        before = self._profiles.broker(profile_id)
        if before is None:
            raise NotFound("Broker profile not found")
        _check_revision(before, expected_revision)
        after = self._checked_broker(_next(before, wanted, self._now_ms()))
        reconnect = _connection(before) != _connection(after)
        if reconnect:
            after = replace(after, connection_revision=before.connection_revision + 1)
        withdrawn = before.allow_public_use and not after.allow_public_use
        # A changed allowlist may take topics away. Subscriptions made under the old one must not outlive it.
        reallowed = before.topic_allowlist != after.topic_allowlist
        change = _change(BROKER, after, withdrawn) if withdrawn or reconnect or reallowed else None
        self._profiles.write_broker(before, after, change)
        self._record("broker_profile.updated", actor, after)
        self._follow_now(change)
        return after

    def delete(self, actor: User, kind: str, profile_id: str) -> None:
        """Delete a profile. Datasources that name it lose their intent, and public viewers their right.

        It is deleted whatever others save meanwhile. Raises `Unavailable` when they save again and again.
        """
        check_admin(actor)
        profile, change = self._delete(kind, profile_id)
        self._record(f"{kind}_profile.deleted", actor, profile)
        self._follow_now(change)

    @from_what_stands
    def _delete(self, kind: str, profile_id: str) -> tuple[CredentialProfile | BrokerProfile, ProfileChange]:
        profile = self._profiles.credential(profile_id) if kind == CREDENTIAL else self._profiles.broker(profile_id)
        if profile is None:
            raise NotFound(f"{kind.title()} profile not found")
        change = ProfileChange(kind, profile_id, profile.revision + 1, withdrawn=True)
        self._profiles.delete(kind, profile_id, profile.revision, change)
        return profile, change

    def _follow_now(self, change: ProfileChange | None) -> None:
        """Let the dashboards follow the change. Usually all have followed when the request is answered.

        For those that have not, a request is queued. Once the profile is written, the change is stored and no dashboard
        is forgotten. So the request does not fail when a store stops answering here.
        """
        if change is None:
            return
        try:
            done = self._follow.one(change, self._clock.monotonic() + _FOLLOW_S)
        except Unavailable:
            done = False
        if not done:
            with suppress(Unavailable):  # the schedule also asks for it every minute
                self._requests.ask()

    def _checked_credential(
        self, profile: CredentialProfile, secret: Mapping[str, str], username: str
    ) -> CredentialProfile:
        """`secret`: its parts; where they are kept, only their names count. `username`: the one that it will have."""
        kind = profile.type
        if not profile.name.strip():
            raise InvalidInput("Credential profile name is required")
        _check_secret(kind, secret)
        header = profile.header_name.strip() if profile.header_name else None
        if kind is CredentialType.HEADER and not header:
            raise InvalidInput("Header credential profile requires headerName")
        if header:
            check_name(header, "headerName")
        destinations = check_destinations(profile.destinations, self._egress)
        if kind is CredentialType.BASIC and destinations:
            check_basic_user(username)
        name, keys = profile.name.strip(), tuple(sorted(secret))
        return replace(profile, name=name, header_name=header, destinations=destinations, secret_keys=keys)

    def _kept_user(self, before: CredentialProfile, wanted: CredentialProfile) -> str:
        """The stored user name, where one that was for brokers only is to go to URLs from now on; otherwise empty."""
        if before.type is not CredentialType.BASIC or before.destinations or not wanted.destinations:
            return ""
        sealed = self._profiles.sealed_secret(before.profile_id)
        try:
            return "" if sealed is None else self._cipher.decrypt(before.profile_id, sealed)["username"]
        except SecretUnreadable as error:
            raise InvalidInput("The stored secret cannot be read; give the secret with this change") from error

    def _checked_broker(self, profile: BrokerProfile) -> BrokerProfile:
        if not profile.name.strip():
            raise InvalidInput("Broker profile name is required")
        for pattern in profile.topic_allowlist:
            check_filter(pattern, profile.transport.topic_limits)
        _check_tls(profile.tls)
        allowlist = tuple(dict.fromkeys(pattern.strip() for pattern in profile.topic_allowlist if pattern.strip()))
        profile = replace(profile, name=profile.name.strip(), topic_allowlist=allowlist)
        if profile.credential_profile_id is not None and not is_identifier(profile.credential_profile_id):
            raise InvalidInput(f"credentialProfileId must have 1 to {MAX_IDENTIFIER} characters; null names none")
        if profile.transport is Transport.IOT_CORE:
            if profile.broker_url or profile.credential_profile_id is not None:
                raise InvalidInput("An iot-core broker profile has neither brokerUrl nor credentialProfileId")
            return replace(profile, broker_url=None)
        if profile.credential_profile_id is not None:
            credential = self._profiles.credential(profile.credential_profile_id)
            if credential is None:
                raise InvalidInput("Credential profile not found")
            if credential.type is not CredentialType.BASIC:
                raise InvalidInput("MQTT broker credentials must use a basic credential profile")
        return replace(profile, broker_url=check_broker_url(_broker_url(profile.broker_url), self._egress))

    def _record(
        self,
        action: str,
        actor: User,
        profile: CredentialProfile | BrokerProfile,
        further: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        metadata: dict[str, object] = {"allowPublicUse": profile.allow_public_use, **(further or {})}
        self._audit.record(AuditEvent(action, actor.user_id, "profile", profile.profile_id, self._now_ms(), metadata))

    def _now_ms(self) -> int:
        return int(self._clock.now() * 1000)


def _next(before: P, wanted: P, now_ms: int) -> P:
    """The next revision of a profile: what the admin wrote, with id and creation time as they were."""
    return replace(
        wanted,
        profile_id=before.profile_id,
        revision=before.revision + 1,
        connection_revision=before.connection_revision,
        created_at_ms=before.created_at_ms,
        updated_at_ms=now_ms,
    )


def _change(kind: str, after: CredentialProfile | BrokerProfile, withdrawn: bool) -> ProfileChange:
    return ProfileChange(kind, after.profile_id, after.revision, withdrawn)


def _check_revision(before: CredentialProfile | BrokerProfile, expected: int) -> None:
    if before.revision != expected:
        raise Conflict("The profile was changed since you loaded it. Load it again.", current_revision=before.revision)


def _moved(before: Sequence[str], after: Sequence[str]) -> dict[str, list[str]]:
    """Which destinations came and which went, as the audit log tells it. Empty when they are the same."""
    both = {
        "destinationsAdded": [destination for destination in after if destination not in before],
        "destinationsRemoved": [destination for destination in before if destination not in after],
    }
    return {name: destinations for name, destinations in both.items() if destinations}


def _check_secret(kind: CredentialType, secret: Mapping[str, str]) -> None:
    for key in SECRET_KEYS[kind]:
        if not secret.get(key, "").strip():
            raise InvalidInput(f"{kind.value.title()} credential profile requires secret.{key}")
    if unknown := secret.keys() - set(SECRET_KEYS[kind]):
        raise InvalidInput(f"{kind.value.title()} credential profile does not take secret.{min(unknown)}")
    if kind is CredentialType.BASIC:
        check_basic(secret["username"], secret["password"])
    for key in ("token", "headerValue"):
        if key in secret:
            check_value(secret[key], f"secret.{key}")


def _check_tls(tls: Mapping[str, str]) -> None:
    if unknown := tls.keys() - {"ca"}:
        raise InvalidInput(f"TLS options can only add trust; not allowed: {', '.join(sorted(unknown))}; allowed: ca")
    if "ca" in tls:
        check_ca(tls["ca"])


def _broker_url(text: str | None) -> str:
    if not text or not text.strip():
        raise InvalidInput("Broker URL is required")
    try:
        parts = urlsplit(text.strip())
        port = parts.port
    except ValueError as error:
        raise InvalidInput("Broker URL is invalid") from error
    if parts.scheme.lower() not in ("mqtt", "mqtts"):
        raise InvalidInput("MQTT broker URL must use mqtt:// or mqtts://")
    if not parts.hostname:
        raise InvalidInput("Broker URL hostname is required")
    if parts.username or parts.password:
        raise InvalidInput("Broker URL must not hold credentials; use a basic credential profile")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme.lower()}://{host}" + (f":{port}" if port else "")


def _connection(profile: BrokerProfile) -> tuple[object, ...]:
    """What a connection to the broker depends on."""
    return (profile.transport, profile.broker_url, profile.credential_profile_id, sorted(profile.tls.items()))
