"""What of a stage's file is not as it should be in production, decided from its settings. Nobody is asked here."""

from __future__ import annotations

from dataclasses import fields

from infra.stage import Stage
from ops.doctor_verdict import Check, Verdict, file_of, wrong
from ops.readiness import State
from tidegate.domain.limits import FailureMode
from tidegate.domain.stage_rules import HOPS_OF, Proxies
from tidegate.settings import Settings

#: The modes that decide what holds while the limiter's store does not answer: of the gateway, and of the API.
MODES = ("REALTIME_LIMITER_FAILURE_MODE", "SECURITY_LIMITER_FAILURE_MODE")
#: The limits that keep one client, viewer or owner from using up what is there for all.
LIMITS = (
    "REALTIME_MAX_CLIENT_CONNECTIONS_PER_IP",
    "REALTIME_MAX_CONNECTIONS_PER_DASHBOARD",
    "REALTIME_MAX_SUBSCRIPTIONS_PER_CONNECTION",
    "REALTIME_MAX_UPSTREAMS_PER_OWNER",
    "REALTIME_CONNECT_RATE_LIMIT_IP_PER_MIN",
    "REALTIME_PUBLIC_SUBSCRIBE_RATE_LIMIT_IP_PER_MIN",
    "REALTIME_PUBLIC_SUBSCRIBE_RATE_LIMIT_SHARE_TOKEN_PER_MIN",
    "REALTIME_MESSAGE_RATE_LIMIT_CONNECTION_PER_MIN",
    "REALTIME_MAX_UPDATES_PER_SECOND",
    "REALTIME_MAX_SENDS_PER_SECOND",
    "REALTIME_MQTT_MAX_CONNECTIONS_PER_BROKER",
    "GATEWAY_INTROSPECTION_RATE_LIMIT_PER_MIN",
    "GATEWAY_REVOKED_TOKENS_RATE_LIMIT_PER_MIN",
    "DATASOURCE_TOKEN_MINT_RATE_LIMIT_USER_PER_MIN",
    "DATASOURCE_TOKEN_MINT_RATE_LIMIT_PUBLIC_IP_PER_MIN",
    "DATASOURCE_TOKEN_MINT_RATE_LIMIT_SHARE_TOKEN_PER_MIN",
    "AUTH_LOGIN_MAX_ATTEMPTS",
    "AUTH_LOGIN_ACCOUNT_MAX_ATTEMPTS",
)
#: A limit is looked at again above so many times its default, or below that part of it. Each default has its reason in
#: docs/reference/settings.md, and what is so far from it has another.
FAR = 10
_DEFAULTS = Settings()


def opened(settings: Settings) -> list[str]:
    """The failure modes that admit without counting."""
    modes = (settings.realtime_limiter_failure_mode, settings.security_limiter_failure_mode)
    return [name for name, mode in zip(MODES, modes, strict=True) if mode is FailureMode.OPEN]


def _account(stage: Stage, _: None = None) -> Verdict:
    if not stage.tls:
        return Verdict(State.OK, "none, the stage is on this machine")
    place = stage.place
    missing = [name for name, value in (("account", place.account), ("region", place.region)) if value is None]
    if missing:
        found = f"no {' and no '.join(missing)}: whatever the credentials are of would be deployed to"
        return Verdict(State.WARN, found, f"write {' and '.join(missing)} into {file_of(stage)}")
    return Verdict(State.OK, f"{place.account}, {place.region}")


def _hops(stage: Stage, _: None = None) -> Verdict:
    hops = stage.settings.api_trust_proxy_hops
    proxies = Proxies(stage.settings.proxies)
    if hops == HOPS_OF[proxies]:
        return Verdict(State.OK, f"{hops}, which is right for what is in front ({proxies})")
    found = f"{hops}, confirmed by `hops_confirmed`; what is in front ({proxies}) has {HOPS_OF[proxies]}"
    return Verdict(State.WARN, found, "see that the check of a request through the edge is ok")


def _limits(stage: Stage, _: None = None) -> Verdict:
    if stage.settings.limiter_backend == "memory":
        found = "they are counted in the memory of each process (SECURITY_LIMITER_BACKEND=memory)"
        return Verdict(wrong(stage), found, f"remove SECURITY_LIMITER_BACKEND from {file_of(stage)}")
    values: dict[str, tuple[int, int]] = {
        item.metadata["setting"].variable: (getattr(stage.settings, item.name), getattr(_DEFAULTS, item.name))
        for item in fields(Settings)
    }
    off = [name for name in LIMITS if values[name][0] == 0]
    far = [name for name in LIMITS if name not in off and not _near(*values[name])]
    told = [f"{name}=0 is no limit" for name in off]
    told += [f"{name}={values[name][0]} is far from its default {values[name][1]}" for name in far]
    if not told:
        return Verdict(State.OK, f"all {len(LIMITS)} are on, none is {FAR} times its default or a tenth of it")
    do = f"look at {', '.join(off + far)} in {file_of(stage)}"
    return Verdict(wrong(stage) if off else State.WARN, "; ".join(told), do)


def _near(value: int, default: int) -> bool:
    return default <= value * FAR and value <= default * FAR


def _topics(stage: Stage, _: None = None) -> Verdict:
    settings, variable = stage.settings, "REALTIME_MQTT_ALLOWED_TOPICS"
    topics = settings.mqtt_allowed_topics
    if not settings.mqtt_enabled:
        return Verdict(State.OK, "not needed, MQTT is off")
    if not topics:
        do = f"name topics in {variable}, or set REALTIME_MQTT_ENABLED=false"
        return Verdict(State.WARN, "none, so no datasource can use IoT Core, and MQTT is on", do)
    if wide := [topic for topic in topics if topic.split("/")[0] in ("#", "+")]:
        found = f"{', '.join(wide)}: a wildcard at the first level allows the topics of every stage and application"
        return Verdict(wrong(stage), found, f"let each of {variable} begin with a name")
    return Verdict(State.OK, ", ".join(topics))


def _hosts(stage: Stage, _: None = None) -> Verdict:
    settings, variable = stage.settings, "EGRESS_ALLOWED_HOSTS"
    hosts = settings.egress_allowed_hosts
    do = f"name the hosts of upstreams in {variable}"
    if not hosts and settings.production:
        return Verdict(State.OK, "none, so nothing outside is connected to; only IoT Core is read")
    if not hosts:
        found = f"none, and TIDEGATE_ENV={settings.env} takes that for all of them"
        return Verdict(wrong(stage), found, do)
    # `*.com` has everybody's hosts in it.
    if wide := [host for host in hosts if host == "*" or (host.startswith("*.") and "." not in host[2:])]:
        found = f"{', '.join(wide)}: hosts of anybody are in it"
        return Verdict(wrong(stage), found, do)
    return Verdict(State.OK, ", ".join(hosts))


def _destinations(stage: Stage, _: None = None) -> Verdict:
    settings = stage.settings
    if settings.egress_allow_insecure_tls:
        found = "certificates of upstreams are not checked (EGRESS_ALLOW_INSECURE_TLS=true)"
        return Verdict(wrong(stage), found, f"remove it from {file_of(stage)}")
    if settings.egress_allow_private_destinations:
        found = "upstreams may be at private addresses (EGRESS_ALLOW_PRIVATE_DESTINATIONS=true)"
        return Verdict(State.WARN, found, "leave it so only while an upstream needs it")
    return Verdict(State.OK, "neither is allowed")


def _modes(stage: Stage, _: None = None) -> Verdict:
    if not (names := opened(stage.settings)):
        return Verdict(State.OK, "fail-closed, of the gateway and of the API")
    found = f"{' and '.join(names)}: fail-open"
    if all(name in stage.settings.exceptions for name in names):
        return Verdict(State.WARN, f"{found}, as an exception of the file", "take it back when its reason is gone")
    return Verdict(State.FAILED, found, f"set it to fail-closed in {file_of(stage)}")


def _receiver(stage: Stage, _: None = None) -> Verdict:
    named = stage.place.alarm_email or stage.alarm_topic_arn
    if not stage.tls:
        return Verdict(State.OK, "not needed, a stage on this machine has no alarms")
    if named is None:
        return Verdict(wrong(stage), "nobody is told", f"write alarm_email or alarm_topic_arn into {file_of(stage)}")
    return Verdict(State.OK, named)


#: The checks that need nothing but the stage's file.
CHECKS = (
    Check(
        "account and region of the file",
        "Without them, the credentials of the moment decide where a stage is deployed to.",
        _account,
    ),
    Check(
        "trusted proxy hops",
        "With a wrong number, limits count a proxy in place of a client, or an address that the client made up.",
        _hops,
    ),
    Check(
        "failure modes",
        "Fail-open admits everybody, uncounted, while the store of the limits does not answer.",
        _modes,
    ),
    Check("limits", "One client, viewer or owner must not use up what is there for all.", _limits),
    Check("allowed topics", "They bound what datasources may read of the account's IoT Core.", _topics),
    Check("allowed hosts", "They bound where the relay connects to, and so where a credential may go.", _hosts),
    Check(
        "private and unproved upstreams",
        "A datasource must reach neither the network inside nor a server that proves nothing.",
        _destinations,
    ),
    Check("alarm receiver", "An alarm that tells nobody is none.", _receiver),
)
