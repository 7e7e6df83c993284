from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.domain.limits import FailureMode, counter_shard_count, counter_shards, decide_rate
from tidegate.domain.tokens import SessionClaims, session_claims, session_payload
from tidegate.settings import SettingsError, documented, load

API = {"GATEWAY_API_BASE_URL": "https://api.example/"}


@given(st.integers(1, 2000), st.text(min_size=1, max_size=20))
def test_shard_limits_sum_to_the_cap(cap: int, holder: str) -> None:
    shards = list(counter_shards(holder, cap))
    assert sum(shard.limit for shard in shards) == cap
    assert sorted(shard.index for shard in shards) == list(range(counter_shard_count(cap)))


@given(st.integers(1, 100), st.integers(1, 200), st.integers(0, 10**13))
def test_a_rate_allows_up_to_its_limit(limit: int, count: int, now_ms: int) -> None:
    decision = decide_rate(count, limit, now_ms)
    assert decision.allowed == (count <= limit)
    assert decision.retry_after_ms == 0 if decision.allowed else 1 <= decision.retry_after_ms <= 60_000


#: What production cannot do without.
HOSTS = {"EGRESS_ALLOWED_HOSTS": "*.example.com"}


def test_settings_have_defaults_and_ranges() -> None:
    settings = load(HOSTS)
    assert settings.production and settings.max_subscriptions_per_connection == 50
    assert settings.realtime_limiter_failure_mode is FailureMode.CLOSED
    lenient = load({"TIDEGATE_ENV": " Test "})
    assert not lenient.production and lenient.security_limiter_failure_mode is FailureMode.OPEN
    assert load({"TIDEGATE_ENV": "qa"} | HOSTS).production
    assert load({"REALTIME_MQTT_ALLOWED_TOPICS": " a/# , ,b/+ "} | HOSTS).mqtt_allowed_topics == ("a/#", "b/+")


@pytest.mark.parametrize(
    ("env", "names"),
    [
        ({"REALTIME_ENABLED": "maybe"}, ["REALTIME_ENABLED", "'maybe'", "true, false"]),
        ({"REALTIME_MAX_MESSAGE_BYTES": "131073"}, ["REALTIME_MAX_MESSAGE_BYTES", "1 to 131072"]),
        ({"REALTIME_MAX_MESSAGE_BYTES": "1.5"}, ["whole number"]),
        ({"REALTIME_TRUST_PROXY_HOPS": "1"}, ["must be equal"]),
        ({"REALTIME_MQTT_ALLOWED_TOPICS": "a/#/b"}, ["REALTIME_MQTT_ALLOWED_TOPICS", "'#'"]),
        (
            {
                "REALTIME_MQTT_ALLOWED_TOPICS": "tidegate/a,other/a",
                "REALTIME_MQTT_BATCHED_TOPICS": "tidegate/a,tidegate/b,other/a",
            },
            ["REALTIME_MQTT_BATCHED_TOPICS", "tidegate/b, other/a", "allowed: entries of"],
        ),
        ({"API_ALLOWED_ORIGINS": "https://x.example/path"}, ["without a path"]),
        ({"API_ALLOWED_ORIGINS": "https://x.example:443"}, ["API_ALLOWED_ORIGINS", "as browsers send them"]),
        ({"API_ALLOWED_ORIGINS": "http://x.example:80"}, ["as browsers send them"]),
        ({"API_ALLOWED_ORIGINS": "*"}, ["API_ALLOWED_ORIGINS"]),
        ({"CONSOLE_FRAME_ANCESTORS": "*"}, ["CONSOLE_FRAME_ANCESTORS", "https://intranet.example.com"]),
        ({"CONSOLE_FRAME_ANCESTORS": "https://x.example; script-src *"}, ["CONSOLE_FRAME_ANCESTORS"]),
        ({"SECURITY_LIMITER_BACKEND": "memory"}, ["not allowed in production"]),
        ({"EGRESS_ALLOW_INSECURE_TLS": "yes"}, ["not allowed in production"]),
        ({"REALTIME_RECONNECT_MIN_MS": "60000"}, ["REALTIME_RECONNECT_MAX_MS"]),
        ({"EGRESS_ALLOWED_PORTS": "80,x"}, ["EGRESS_ALLOWED_PORTS", "1 to 65535"]),
        ({"DB_BACKEND": "postgres"}, ["DB_BACKEND", "dynamodb"]),
        ({"GATEWAY_API_BASE_URL": "http://api.example"}, ["GATEWAY_API_BASE_URL", "production", "https://"]),
        ({"GATEWAY_API_BASE_URL": "http://127.0.0.1.example"}, ["not allowed in production"]),
        ({"GATEWAY_API_BASE_URL": "https://u:p@api.example"}, ["GATEWAY_API_BASE_URL", "without user"]),
        ({"GATEWAY_API_BASE_URL": "https://api.example?x=1"}, ["GATEWAY_API_BASE_URL"]),
        ({"GATEWAY_API_BASE_URL": "https://"}, ["GATEWAY_API_BASE_URL"]),
        ({"GATEWAY_API_BASE_URL": "https://[::1"}, ["GATEWAY_API_BASE_URL"]),
        ({"GATEWAY_API_BASE_URL": "https://api.example:99999"}, ["GATEWAY_API_BASE_URL"]),
        ({"GATEWAY_API_BASE_URL": "ftp://api.example"}, ["GATEWAY_API_BASE_URL", "https://"]),
        ({**API, "GATEWAY_INTROSPECTION_TIMEOUT_MS": "22001"}, ["GATEWAY_LIMITER_TIMEOUT_MS", "25001", "25000"]),
        *[
            ({"GATEWAY_LIMITER_TIMEOUT_MS": text}, ["GATEWAY_LIMITER_TIMEOUT_MS", "500 to 9000", "after 15 seconds"])
            for text in ("20000", "9001", "499")
        ],
        (
            {**API, "REALTIME_CONNECT_RATE_LIMIT_IP_PER_MIN": "10001"},
            ["REALTIME_CONNECT_RATE_LIMIT_IP_PER_MIN", "10000"],
        ),
    ],
)
def test_bad_values_name_variable_value_and_range(env: dict[str, str], names: list[str]) -> None:
    with pytest.raises(SettingsError) as caught:
        load(env)
    for name in names:
        assert name in str(caught.value)


def test_where_a_remote_api_may_be() -> None:
    assert load(API | HOSTS).api_base_url == "https://api.example"
    for local in ("http://127.0.0.1:4001", "http://localhost", "http://[::1]:8080/base"):
        assert load({"GATEWAY_API_BASE_URL": local} | HOSTS).api_base_url == local
    anywhere = {"TIDEGATE_ENV": "test", "GATEWAY_API_BASE_URL": "http://api.example"}
    assert load(anywhere).api_base_url == "http://api.example"
    assert load({"GATEWAY_INTROSPECTION_TIMEOUT_MS": "25000"} | HOSTS).api_base_url == "", (
        "no API, no deadline to share"
    )


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(SettingsError) as caught:
        load({"REALTIME_ENABLED": "x", "REALTIME_SSE_ENABLED": "x"} | HOSTS)
    assert str(caught.value).count("\n") == 2


def test_production_says_where_upstreams_may_be() -> None:
    with pytest.raises(SettingsError, match="EGRESS_ALLOWED_HOSTS"):
        load({})
    load({"REALTIME_SSE_ENABLED": "false", "REALTIME_WS_ENABLED": "false"})
    load({"TIDEGATE_ENV": "development"})


def test_no_variable_is_declared_twice() -> None:
    variables = [setting.variable for setting in documented()]
    assert len(set(variables)) == len(variables)


def test_session_claims_survive_their_payload() -> None:
    claims = SessionClaims("u", "d", "s", "datasource:stream", 1, 2, "j", "h", None, 4, "viewer", None)
    assert session_claims(session_payload(claims)) == claims
    public = SessionClaims("public", "d", "s", "datasource:stream", 1, 2)
    assert public.principal.share_version == 0
    assert public.claim("now").intent_hash == "now"
