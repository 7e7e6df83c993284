"""What is no token of ours is refused as such, whatever it is."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import Any, cast

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.adapters.aws.json_client import AwsError, JsonClient
from tidegate.adapters.aws.secrets_manager import Secret
from tidegate.adapters.system import SystemClock
from tidegate.adapters.tokens_jwt import JwtSessionTokens, JwtUserTokens
from tidegate.domain.access import Role
from tidegate.domain.tokens import SessionClaims, UserClaims
from tidegate.errors import Unauthenticated

NOW = 1_800_000_000
KEY = "k" * 40


class SecretsManager:
    """Has one version of one secret."""

    def call(self, operation: str, payload: dict[str, str]) -> dict[str, str]:
        if payload.get("VersionStage") != "AWSCURRENT":
            raise AwsError("secretsmanager", operation, "ResourceNotFoundException", "", False, {})
        return {"SecretString": KEY}


SECRET = Secret(lambda: cast(JsonClient, SecretsManager()), "arn", SystemClock())
TOKENS = JwtSessionTokens(SECRET, "api", "gateway")
CLAIMS = SessionClaims(
    subject="u", dashboard_id="d", datasource_id="s", scope="x", issued_at=NOW, expires_at=NOW + 60, jti="j"
)


def signed(**changed: Any) -> str:
    """A token with our key, and claims that only an issuer's bug or another issuer would write."""
    payload = jwt.decode(TOKENS.sign(CLAIMS), options={"verify_signature": False}) | changed
    return jwt.encode({name: value for name, value in payload.items() if value is not ...}, KEY, algorithm="HS256")


def part(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def with_header(raw: bytes) -> str:
    return f"{part(raw)}.{part(b'{}')}.{part(b'signature')}"


def refuse(token: str) -> None:
    with pytest.raises(Unauthenticated) as caught:
        TOKENS.verify(token, NOW)
    assert caught.value.code == "unauthenticated" and not caught.value.temporary


def test_what_we_sign_is_ours() -> None:
    assert TOKENS.verify(TOKENS.sign(CLAIMS), NOW) == CLAIMS
    assert TOKENS.verify(signed(nbf=NOW, iat=..., jti=...), NOW) == replace(CLAIMS, issued_at=0, jti=None)


@pytest.mark.parametrize(
    "token",
    [
        "",
        "\ud800",
        "a.b.\ud800",
        "ü.ü.ü",
        "a.b.c",
        f"{part(b'[' * 5000)}.{part(b'{}')}.",
        f"{part(b'7' * 5000)}.{part(b'{}')}.",
        with_header(b'{"alg":null}'),
        with_header(b'{"alg":"none"}'),
        with_header(b'{"alg":["HS256"]}'),
        with_header(b'{"alg":"HS256","kid":7}'),
        with_header(b'{"alg":"HS256","crit":["x"],"x":1}'),
    ],
    ids=ascii,
)
def test_what_is_not_a_token(token: str) -> None:
    refuse(token)


@given(st.text(max_size=300) | st.lists(st.binary(max_size=60).map(part), min_size=2, max_size=4).map(".".join))
def test_no_text_is_a_token_by_accident(token: str) -> None:
    refuse(token)


@given(
    st.dictionaries(
        st.sampled_from(["alg", "typ", "crit", "b64", "zip"]),
        st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists, max_leaves=4),
    )
)
def test_no_header_passes_for_ours(header: dict[str, object]) -> None:
    refuse(with_header(json.dumps(header).encode()))


@pytest.mark.parametrize(
    "changed",
    [
        {"exp": ...},
        {"exp": True},
        {"exp": "1"},
        {"exp": float("nan")},
        {"exp": float("inf")},
        {"exp": 10**400},
        {"nbf": NOW + 1},
        {"nbf": NOW + 3600},
        {"nbf": True},
        {"nbf": "0"},
        {"nbf": float("nan")},
        {"iat": float("nan")},
        {"iat": True},
        {"shareTokenVersion": True},
        {"shareTokenVersion": float("inf")},
        {"sv": 1.5},
        {"sub": ""},
        {"sub": 7},
        {"dashboardId": "\ud800"},
        {"datasourceId": "x" * 201},
        {"jti": []},
    ],
    ids=str,
)
def test_claims_that_nobody_should_write(changed: dict[str, object]) -> None:
    """Signed with our key all the same, as a buggy or a careless issuer would."""
    refuse(signed(**changed))


def test_a_session_token_is_no_login() -> None:
    logins = JwtUserTokens(SECRET, "api")
    login = UserClaims("u", "u@x.example", Role.VIEWER, 0, NOW, NOW + 60, "l", NOW - 60)
    assert logins.verify(logins.sign(login), NOW) == login
    refuse(logins.sign(login))
    with pytest.raises(Unauthenticated):
        logins.verify(TOKENS.sign(CLAIMS), NOW)
