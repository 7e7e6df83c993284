"""Build what the relay connects to, from the stored intent and from its profiles as they are now.

Invariants of this file: a secret is read only here, when an upstream is to be connected, and exists only in the
request. It is read only when the profile, as it is stored now, allows it to go to the stream's URL.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from tidegate.domain.credentials import Placement, placement_of
from tidegate.domain.destinations import serves
from tidegate.domain.headers import check_pair, is_token
from tidegate.domain.intents import Intent, IntentDefaults
from tidegate.domain.profiles import CredentialProfile, CredentialType
from tidegate.domain.subscriptions import Stream
from tidegate.errors import InvalidInput, SecretUnreadable
from tidegate.ports.control_plane import CredentialCipher
from tidegate.ports.profiles import ProfileStore
from tidegate.ports.relay import Broker, MqttRequest, UpstreamFault, UpstreamRequest, UpstreamRequests
from tidegate.protocol.messages import ErrorCode


class StoredUpstreamRequests(UpstreamRequests):
    """`ports.relay.UpstreamRequests` answered from our own tables."""

    def __init__(self, *, profiles: ProfileStore, cipher: CredentialCipher) -> None:
        self._profiles = profiles
        self._cipher = cipher

    def __call__(self, stream: Stream) -> UpstreamRequest | MqttRequest:
        """See `ports.relay.UpstreamRequests`.

        Raises:
            UpstreamFault: a profile has changed since the stream was registered, or does not allow the URL; or its
                secret cannot be decrypted, or cannot be sent.
            Unavailable: a store or the key's service did not answer.
        """
        intent = stream.intent or {}
        profile, sealed = self._credential(intent)
        if stream.protocol == "mqtt":
            return self._mqtt(intent, profile, sealed)
        url, headers = str(intent["url"]), _texts(intent.get("headers"))
        request = http_request(intent, url, headers, self._placement(intent, url, profile, sealed))
        return request if profile is None else replace(request, secret_revision=profile.secret_revision)

    def _placement(
        self, intent: Intent, url: str, profile: CredentialProfile | None, sealed: str | None
    ) -> Placement | None:
        if profile is None:
            return None
        if not serves(profile, url, str(intent["protocol"])):
            text = "The credential profile does not allow this URL"
            raise UpstreamFault(ErrorCode.POLICY_BLOCKED, text, refused=True)
        secret = self._secret(profile, sealed)
        try:
            return placement_of(profile, secret, str(intent.get("authPlacement")), intent.get("queryParamName"))
        except InvalidInput as error:
            raise UpstreamFault(ErrorCode.AUTH_FAILED, "The credential cannot be sent", refused=True) from error

    def _mqtt(self, intent: Intent, credential: CredentialProfile | None, sealed: str | None) -> MqttRequest:
        broker = self._profiles.broker(str(intent["brokerProfileId"]))
        if broker is None or broker.connection_revision != intent.get("brokerRevision"):
            raise UpstreamFault(ErrorCode.POLICY_BLOCKED, "The broker profile was changed", refused=True)
        url, ca = str(broker.broker_url), broker.tls.get("ca", "")
        if credential is None:
            return mqtt_request(intent, Broker(broker.profile_id, url, ca=ca))
        if credential.type is not CredentialType.BASIC:
            text = "MQTT broker credentials must use a basic credential profile"
            raise UpstreamFault(ErrorCode.AUTH_FAILED, text, refused=True)
        secret = self._secret(credential, sealed)
        name, password = secret.get("username"), secret.get("password")
        return mqtt_request(intent, Broker(broker.profile_id, url, name, password, ca, credential.secret_revision))

    def _credential(self, intent: Intent) -> tuple[CredentialProfile | None, str | None]:
        """The credential profile that the intent names, and its encrypted secret. None when it names none."""
        profile_id = intent.get("credentialProfileId")
        if profile_id is None:
            return None, None
        stored = self._profiles.credential_and_secret(str(profile_id))
        if stored is None or stored[0].connection_revision != intent.get("credentialRevision"):
            raise UpstreamFault(ErrorCode.POLICY_BLOCKED, "The credential profile was changed", refused=True)
        return stored

    def _secret(self, profile: CredentialProfile, sealed: str | None) -> Mapping[str, str]:
        if sealed is None:
            if profile.type is CredentialType.NONE:
                return {}
            raise _unreadable()
        try:
            return self._cipher.decrypt(profile.profile_id, sealed)
        except SecretUnreadable as error:
            raise _unreadable() from error


def _unreadable() -> UpstreamFault:
    return UpstreamFault(ErrorCode.AUTH_FAILED, "The credential cannot be read", refused=True)


def http_request(
    intent: Intent, url: str, headers: Mapping[str, str], credential: Placement | None = None
) -> UpstreamRequest:
    """The request of an SSE or WebSocket intent.

    What was stored under older rules, or comes from a remote API, is checked here once more.

    Raises:
        UpstreamFault: a header or the name of a subprotocol cannot be sent. The text shows neither.
    """
    protocols = intent.get("protocols")
    names = tuple(map(str, protocols)) if isinstance(protocols, list) else ()
    placed = [credential.header] if credential is not None and credential.header is not None else []
    try:
        for pair in [*headers.items(), *placed]:
            check_pair(*pair)
        if not all(map(is_token, names)):
            raise InvalidInput("the name of a subprotocol is not a token")
    except InvalidInput as error:
        text = "A header of the datasource cannot be sent"
        raise UpstreamFault(ErrorCode.POLICY_BLOCKED, text, refused=True) from error
    return UpstreamRequest(
        protocol=str(intent["protocol"]),
        url=url,
        headers=headers,
        protocols=names,
        idle_timeout_s=int(str(intent.get("idleTimeoutMs", IntentDefaults().sse_idle_timeout_ms))) / 1000,
        credential=credential,
    )


def mqtt_request(intent: Intent, broker: Broker) -> MqttRequest:
    """The request of an MQTT intent at this broker."""
    return MqttRequest(
        broker,
        topic=str(intent["topic"]),
        qos=int(str(intent["qos"])),
        keepalive_s=int(str(intent["keepaliveSeconds"])),
    )


def _texts(headers: object) -> dict[str, str]:
    return {str(name): str(value) for name, value in headers.items()} if isinstance(headers, Mapping) else {}
