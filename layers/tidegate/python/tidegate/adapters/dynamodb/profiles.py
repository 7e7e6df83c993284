"""The profiles table. Its keys, written as kind/id:

- `credential`/id and `broker`/id: profiles.
- `name#<kind>`/name: makes the names of a kind unique.
- `use#<kind>#<id>`/dashboard id: a dashboard uses the profile.
- `use#credential#<id>`/`broker#<id>`: a broker profile uses the credential.
- `change`/`<kind>#<id>#<revision>`: a change that dashboards have yet to follow.
- `change#<kind>#<id>#<revision>`/dashboard id: the dashboard has followed that change.

Invariants of this file: a name's item and its profile are written and deleted together. Only `credential_and_secret`,
`sealed_secret` and `sealed_secrets` give out a sealed secret. A sealed secret is replaced only over the one that was
read: by `replace_sealed`, and by a write that keeps it. So it is never another secret, and `secret_revision` stays.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import islice
from secrets import token_hex
from typing import Any

from tidegate.adapters.dynamodb.client import (
    ConditionFailed,
    DynamoDb,
    Item,
    TransactionFailed,
    check_action,
    delete_action,
    put_action,
)
from tidegate.domain.profile_changes import ProfileChange
from tidegate.domain.profiles import (
    BROKER,
    CREDENTIAL,
    BrokerProfile,
    CredentialProfile,
    CredentialType,
    ProfileUse,
    Transport,
)
from tidegate.errors import ChangedMeanwhile, Conflict
from tidegate.ports.profiles import ProfileStore

_CHANGE = "change"


class DynamoProfiles(ProfileStore):
    """Credential and broker profiles, their uses, and the changes that dashboards have yet to follow."""

    def __init__(self, db: DynamoDb, table: str) -> None:
        self._db = db
        self._table = table

    def credential(self, profile_id: str) -> CredentialProfile | None:
        item = self._db.get(self._table, {"kind": CREDENTIAL, "id": profile_id})
        return _credential(item) if item else None

    def credential_and_secret(self, profile_id: str) -> tuple[CredentialProfile, str | None] | None:
        item = self._db.get(self._table, {"kind": CREDENTIAL, "id": profile_id})
        return (_credential(item), item.get("sealed")) if item else None

    def broker(self, profile_id: str) -> BrokerProfile | None:
        item = self._db.get(self._table, {"kind": BROKER, "id": profile_id})
        return _broker(item) if item else None

    def credentials(self) -> Sequence[CredentialProfile]:
        return [_credential(item) for item in self._db.query(self._table, "#kind = :kind", {"kind": CREDENTIAL})]

    def brokers(self) -> Sequence[BrokerProfile]:
        return [_broker(item) for item in self._db.query(self._table, "#kind = :kind", {"kind": BROKER})]

    def sealed_secret(self, profile_id: str) -> str | None:
        item = self._db.get(self._table, {"kind": CREDENTIAL, "id": profile_id})
        return item.get("sealed") if item else None

    def sealed_secrets(self) -> Iterator[tuple[str, str]]:
        for item in self._db.query(self._table, "#kind = :kind", {"kind": CREDENTIAL}):
            if "sealed" in item:
                yield item["id"], item["sealed"]

    def replace_sealed(self, profile_id: str, before: str, after: str) -> bool:
        key, values = {"kind": CREDENTIAL, "id": profile_id}, {"before": before, "after": after}
        try:
            self._db.update(self._table, key, "SET #sealed = :after", "#sealed = :before", values)
        except ConditionFailed as failed:
            # The answer to our own write was lost, and this is its repetition.
            return failed.item is not None and failed.item.get("sealed") == after
        return True

    def write_credential(
        self,
        before: CredentialProfile | None,
        after: CredentialProfile,
        sealed_secret: str | None,
        change: ProfileChange | None = None,
    ) -> None:
        further = self._opened(change)
        # A profile that needs no secret any more does not keep the one it had.
        if sealed_secret is not None or before is None or not after.secret_keys:
            self._write(CREDENTIAL, before, after, _credential_item(after, sealed_secret), further)
            return
        written = False
        while not written:  # again only when a re-encryption of the same secret came in between
            item = _credential_item(after, self.sealed_secret(before.profile_id))
            written = self._write(CREDENTIAL, before, after, item, further, keeps_sealed=True)

    def write_broker(
        self, before: BrokerProfile | None, after: BrokerProfile, change: ProfileChange | None = None
    ) -> None:
        further = self._opened(change)
        old = before.credential_profile_id if before else None
        if old and old != after.credential_profile_id:
            further.append(delete_action(self._table, _use(CREDENTIAL, old, f"{BROKER}#{after.profile_id}")))
        if after.credential_profile_id and old != after.credential_profile_id:
            further.append(
                put_action(self._table, _use(CREDENTIAL, after.credential_profile_id, f"{BROKER}#{after.profile_id}"))
            )
        self._write(BROKER, before, after, _broker_item(after), further)

    def delete(self, kind: str, profile_id: str, revision: int, change: ProfileChange | None = None) -> None:
        item = self._db.get(self._table, {"kind": kind, "id": profile_id})
        if item is None:
            return
        actions = [
            delete_action(self._table, {"kind": kind, "id": profile_id}, "#revision = :old", {"old": revision}),
            delete_action(self._table, _name(kind, item["name"])),
            *self._opened(change),
        ]
        if kind == BROKER and item.get("credential_profile_id"):
            actions.append(
                delete_action(self._table, _use(CREDENTIAL, item["credential_profile_id"], f"{BROKER}#{profile_id}"))
            )
        try:
            self._db.transact(actions, token=token_hex(16))
        except TransactionFailed as failure:
            raise ChangedMeanwhile("The profile was changed meanwhile. Load it again.") from failure

    def used_by(self, kind: str, profile_id: str, most: int | None = None) -> Sequence[str]:
        direct: set[str] = set()
        for user in self._users_of(kind, profile_id):
            if user.startswith(f"{BROKER}#"):
                direct.update(islice(self._users_of(BROKER, user.removeprefix(f"{BROKER}#")), most))
            else:
                direct.add(user)
            if most is not None and len(direct) >= most:
                break
        return sorted(direct)[:most]

    def _users_of(self, kind: str, profile_id: str) -> Iterator[str]:
        uses = self._db.query(self._table, "#kind = :use", {"use": f"use#{kind}#{profile_id}"})
        return (str(item["id"]) for item in uses)

    def open_changes(self) -> Sequence[ProfileChange]:
        return [_change(item) for item in self._db.query(self._table, "#kind = :kind", {"kind": _CHANGE})]

    def has_followed(self, change: ProfileChange, dashboard_id: str) -> bool:
        return self._db.get(self._table, _followed(change, dashboard_id)) is not None

    def end_change(self, change: ProfileChange) -> None:
        opened = _opened_key(change)
        with suppress(ConditionFailed):
            # This comes first. The items that say which dashboards have followed are deleted next, and meanwhile nobody
            # may make a dashboard follow once more.
            self._db.update(self._table, opened, "SET #followed = :yes", "attribute_exists(#kind)", {"yes": True})
        done = self._db.query(self._table, "#kind = :done", {"done": _followed(change, "")["kind"]})
        self._db.delete_many(self._table, [{"kind": item["kind"], "id": item["id"]} for item in done])
        self._db.delete(self._table, opened)

    def _opened(self, change: ProfileChange | None) -> list[dict[str, Any]]:
        if change is None:
            return []
        return [put_action(self._table, _opened_key(change) | {"withdrawn": change.withdrawn, "followed": False})]

    def _write(
        self,
        kind: str,
        before: CredentialProfile | BrokerProfile | None,
        after: CredentialProfile | BrokerProfile,
        item: Item,
        further: list[dict[str, Any]],
        *,
        keeps_sealed: bool = False,
    ) -> bool:
        """Write a profile and what belongs to it. Raises `Conflict`.

        Args:
            keeps_sealed: the item has the sealed secret as it was read.

        Returns:
            False when it was not written because that secret was encrypted anew since, and nothing else was changed.
        """
        name = _name(kind, after.name) | {"profile_id": after.profile_id}
        free = "attribute_not_exists(#kind) OR #profile_id = :id"
        # A repetition may find its own write done, which `write_id` shows. The revision cannot show it: another admin
        # who saw the same one has written the same next one.
        write_id = token_hex(16)
        condition, values = _condition(before, item, write_id, keeps_sealed)
        actions = [
            put_action(self._table, item | {"write_id": write_id}, condition, values),
            put_action(self._table, name, free, {"id": after.profile_id}),
            *further,
        ]
        if before is not None and before.name != after.name:
            actions.append(delete_action(self._table, _name(kind, before.name)))
        try:
            self._db.transact(actions, token=write_id)
        except TransactionFailed as failure:
            if 1 in failure.failed:
                raise Conflict(f"A {kind} profile named '{after.name}' exists already", code="name_taken") from failure
            stored = self._db.get(self._table, {"kind": kind, "id": after.profile_id}) or {}
            if stored.get("write_id") == write_id:
                return True  # done before, and its secret was encrypted anew since
            if keeps_sealed and before is not None and stored.get("revision") == before.revision:
                return False
            raise Conflict("The profile was changed meanwhile. Load it again.") from failure
        return True


def _condition(
    before: CredentialProfile | BrokerProfile | None, item: Item, write_id: str, keeps_sealed: bool
) -> tuple[str, dict[str, Any]]:
    """On what a profile is written, with its values: that it is as it was read, or that this very write was done."""
    seen = "attribute_not_exists(#kind)" if before is None else "#revision = :old"
    done, values = "#write_id = :write", {"write": write_id} | ({} if before is None else {"old": before.revision})
    if item["kind"] == CREDENTIAL:
        sealed = "#sealed = :sealed" if "sealed" in item else "attribute_not_exists(#sealed)"
        values |= {"sealed": item["sealed"]} if "sealed" in item else {}
        done = f"{done} AND {sealed}"
        seen = f"{seen} AND {sealed}" if keeps_sealed else seen
    return f"({seen}) OR ({done})", values


def use_actions(
    table: str, dashboard_id: str, before: frozenset[ProfileUse], after: frozenset[ProfileUse]
) -> list[dict[str, Any]]:
    """The actions that write a dashboard's uses of profiles.

    They also check that the profiles from which intents were built have not changed since they were read.
    """
    was, now = {(use.kind, use.profile_id) for use in before}, {(use.kind, use.profile_id) for use in after}
    checks = [
        check_action(
            table,
            {"kind": use.kind, "id": use.profile_id},
            "#connection_revision = :seen",
            {"seen": use.connection_revision},
        )
        for use in sorted(after, key=lambda use: (use.kind, use.profile_id))
        if use.connection_revision is not None
    ]
    added = [put_action(table, _use(kind, profile_id, dashboard_id)) for kind, profile_id in sorted(now - was)]
    dropped = [delete_action(table, _use(kind, profile_id, dashboard_id)) for kind, profile_id in sorted(was - now)]
    return checks + added + dropped


def follow_action(table: str, change: ProfileChange, dashboard_id: str) -> dict[str, Any]:
    """The action that notes that a dashboard has followed a change. It fails when that was noted before."""
    return put_action(table, _followed(change, dashboard_id), "attribute_not_exists(#kind)")


def _opened_key(change: ProfileChange) -> dict[str, str]:
    return {"kind": _CHANGE, "id": f"{change.kind}#{change.profile_id}#{change.revision}"}


def _followed(change: ProfileChange, dashboard_id: str) -> dict[str, str]:
    return {"kind": f"{_CHANGE}#{change.kind}#{change.profile_id}#{change.revision}", "id": dashboard_id}


def _change(item: Item) -> ProfileChange:
    kind, profile_id, revision = str(item["id"]).split("#")
    return ProfileChange(kind, profile_id, int(revision), item["withdrawn"], item["followed"])


def _use(kind: str, profile_id: str, user: str) -> dict[str, str]:
    return {"kind": f"use#{kind}#{profile_id}", "id": user}


def _name(kind: str, name: str) -> dict[str, str]:
    return {"kind": f"name#{kind}", "id": name.strip().lower()}


def _credential_item(profile: CredentialProfile, sealed: str | None) -> Item:
    item = {
        "kind": CREDENTIAL,
        "id": profile.profile_id,
        "name": profile.name,
        "type": profile.type.value,
        "destinations": list(profile.destinations),
        "allow_public_use": profile.allow_public_use,
        "description": profile.description,
        "header_name": profile.header_name,
        "secret_keys": list(profile.secret_keys),
        "secret_revision": profile.secret_revision,
        "connection_revision": profile.connection_revision,
        "revision": profile.revision,
        "created_at_ms": profile.created_at_ms,
        "updated_at_ms": profile.updated_at_ms,
    }
    return item if sealed is None else item | {"sealed": sealed}


def _credential(item: Item) -> CredentialProfile:
    return CredentialProfile(
        profile_id=item["id"],
        name=item["name"],
        type=CredentialType(item["type"]),
        destinations=tuple(item["destinations"]),
        allow_public_use=item["allow_public_use"],
        description=item["description"],
        header_name=item["header_name"],
        secret_keys=tuple(item["secret_keys"]),
        secret_revision=item["secret_revision"],
        connection_revision=item["connection_revision"],
        revision=item["revision"],
        created_at_ms=item["created_at_ms"],
        updated_at_ms=item["updated_at_ms"],
    )


def _broker_item(profile: BrokerProfile) -> Item:
    return {
        "kind": BROKER,
        "id": profile.profile_id,
        "name": profile.name,
        "transport": profile.transport.value,
        "broker_url": profile.broker_url,
        "credential_profile_id": profile.credential_profile_id,
        "topic_allowlist": list(profile.topic_allowlist),
        "allow_public_use": profile.allow_public_use,
        "description": profile.description,
        "tls": dict(profile.tls),
        "connection_revision": profile.connection_revision,
        "revision": profile.revision,
        "created_at_ms": profile.created_at_ms,
        "updated_at_ms": profile.updated_at_ms,
    }


def _broker(item: Item) -> BrokerProfile:
    return BrokerProfile(
        profile_id=item["id"],
        name=item["name"],
        transport=Transport(item["transport"]),
        broker_url=item["broker_url"],
        credential_profile_id=item["credential_profile_id"],
        topic_allowlist=tuple(item["topic_allowlist"]),
        allow_public_use=item["allow_public_use"],
        description=item["description"],
        tls=item["tls"],
        connection_revision=item["connection_revision"],
        revision=item["revision"],
        created_at_ms=item["created_at_ms"],
        updated_at_ms=item["updated_at_ms"],
    )
