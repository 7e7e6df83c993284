"""Names that carry a secret and names that do not, and documents that hold one."""

from __future__ import annotations

import json
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.domain.documents import InvalidDocument, check_document
from tidegate.domain.plain_secrets import has_user_info, names_secret, secret_parameters

SECRET_HEADERS = [
    *("Authorization", "authorization", "aUTHORIZATION", "Proxy-Authorization", "X-Authorization", "Cookie", "Cookie2"),
    *("Set-Cookie", "X-Api-Key", "x-api-key", "X-API-KEY", "X_API_KEY", "XApiKey", "apikey", "ApiKey", "X-ApiKey"),
    *("X-Api-Key2", "X-Auth", "X-Auth-Token", "X-AuthToken", "X-Access-Token", "Private-Token", "X-Vault-Token"),
    *("X-Amz-Security-Token", "X-Functions-Key", "Ocp-Apim-Subscription-Key", "X-Goog-Api-Key", "X-Plex-Token"),
    *(
        "X-Secret",
        "X-Client-Secret",
        "X-ClientSecret",
        "X-Password",
        "X-User-Pass",
        "X-Signature",
        "X-Hub-Signature-256",
    ),
    *("X-Session-Id", "X-SessionId", "X-Jwt", "X-Bearer", "X-CSRF-Token", "X-Amz-Credential", "DD-API-KEY", "Token"),
]
PLAIN_HEADERS = [
    *("Accept", "Accept-Language", "User-Agent", "X-Plant", "Author", "X-Author", "X-Authors", "X-Authored-By"),
    *("X-Keyboard", "X-Monkey", "X-Keynote", "X-Hockey", "X-Tokenizer", "X-Secretary", "X-Compass", "X-Pass-Through"),
    *("X-Bypass", "X-Passenger", "X-Design", "X-Signal", "X-Cookies-Baked", "Idempotency-Key", "X-Partition-Key"),
    *(
        "X-Next-Page-Token",
        "X-Request-Id",
        "X-User",
        "X-Site",
        "Last-Event-ID",
        "X-Correlation-Id",
        "Origin",
        "Referer",
    ),
    *("Authority", "X-Session-Name", "Content-Type", "Cache-Control", "traceparent", "X-Public-Key", "X-Hotkey"),
]
SECRET_PARAMETERS = [
    *("token", "key", "api_key", "apikey", "apiKey", "api-key", "access_token", "accessToken", "accesstoken", "sig"),
    *("password", "passwd", "pwd", "pass", "user_pass", "auth", "auth_token", "authtoken", "secret", "client_secret"),
    *("X-Amz-Signature", "X-Amz-Credential", "X-Goog-Signature", "AWSAccessKeyId", "jwt", "TOKEN", "Key", "id_token"),
    *("session_id", "JSESSIONID", "PHPSESSID", "oauth_token", "sas-token", "subscription-key", "t%6Fken", "api+key"),
]
PLAIN_PARAMETERS = [
    *("monkey", "keyboard", "keys", "author", "authors", "rate", "n", "from", "sort_key", "partitionKey", "page_token"),
    *(
        "pageToken",
        "max_tokens",
        "topic",
        "station",
        "sid",
        "passenger",
        "signal",
        "design",
        "assign",
        "a",
        "secretary",
    ),
    *("compass", "pass_count", "tokenize", "turkey", "donkey", "hockey", "keyframe", "hotkey", "publicKey", "user"),
]


def test_names_that_carry_a_secret() -> None:
    assert [name for name in SECRET_HEADERS if not names_secret(name)] == []


def test_names_that_carry_none() -> None:
    assert [name for name in PLAIN_HEADERS if names_secret(name)] == []


def test_parameters_that_carry_a_secret() -> None:
    for url in ("https://h/x?{}=v", "wss://h?a=1&{}=v", "https://h/?{}", "https://h/a;{}=v/b", "https://h/?a=1;{}=v#x"):
        missed = [name for name in SECRET_PARAMETERS if not list(secret_parameters(url.format(name)))]
        assert missed == [], url
    assert list(secret_parameters("https://h/x#access_token=v")) == ["access_token"]
    assert list(secret_parameters("https://h/x?to\tken=v")) == ["token"]


def test_parameters_that_carry_none() -> None:
    for url in (
        "https://h/x?{}=v",
        "https://h/{}/token/key?a={}",
        "https://token.h/key/{}?a=token&b=key",
        "wss://h#{}",
    ):
        wrong = [name for name in PLAIN_PARAMETERS if list(secret_parameters(url.replace("{}", name)))]
        assert wrong == [], url
    assert not list(secret_parameters("https://h/x#token"))


@given(st.sampled_from(["token", "api_key", "Password", "sig"]), st.data())
def test_how_a_name_is_written_changes_nothing(name: str, data: st.DataObject) -> None:
    written = "".join(data.draw(st.sampled_from([each.lower(), each.upper(), f"%{ord(each):02X}"])) for each in name)
    assert list(secret_parameters(f"https://h/?{written}=v")) != []


@pytest.mark.parametrize(
    "url",
    [
        *(
            "https://user:pass@h/",
            "https://user@h",
            "https://@h",
            "wss://:p@h:1/x",
            "//u:p@h",
            "https:u:p@h",
            " http://u@h",
        ),
        *("https:\\\\u:p@h", "https:///u:p@h", "ht\ntps://u:p@h", "mqtt://u:p@h", f"https://{quote('a b')}@h"),
    ],
)
def test_user_info(url: str) -> None:
    assert has_user_info(url)


@pytest.mark.parametrize(
    "url", ["https://h", "https://h/@user", "https://h/?a=b@c", "https://h#a@b", "https://[::1]/a@b"]
)
def test_an_at_elsewhere_is_no_user_info(url: str) -> None:
    assert not has_user_info(url)


@given(st.text())
def test_any_text_is_answered(text: str) -> None:
    has_user_info(text)
    names_secret(text)
    list(secret_parameters(text))


def refused(settings: dict[str, object], **changes: object) -> list[tuple[str, str]]:
    source = {"id": "a", "type": "sse", "settings": settings, **changes}
    try:
        check_document({"schemaVersion": 1, "title": "T", "datasources": [source]})
    except InvalidDocument as error:
        assert "top-secret-7" not in error.message
        return error.problems
    return []


@pytest.mark.parametrize("changes", [{}, {"enabled": False}, {"type": "json"}, {"type": "mqtt"}], ids=str)
@pytest.mark.parametrize(
    ("settings", "path", "named"),
    [
        ({"headers": {"Authorization": "Bearer top-secret-7"}}, "headers", "'Authorization'"),
        ({"headers": {"X-Plant": "n", " x-api-key ": "top-secret-7"}}, "headers", "'x-api-key'"),
        ({"headers": json.dumps({"Cookie": "top-secret-7"})}, "headers", "'Cookie'"),
        ({"requestHeaders": {"X-Auth-Token": "top-secret-7"}}, "requestHeaders", "'X-Auth-Token'"),
        ({"headers": {}, "requestHeaders": {"X-Auth-Token": "top-secret-7"}}, "requestHeaders", "'X-Auth-Token'"),
        ({"headers": [{"name": "Authorization", "value": "top-secret-7"}]}, "headers", "'Authorization'"),
        ({"url": "https://u:top-secret-7@h/x"}, "url", "no user name and no password"),
        ({"url": "https://h/x?a=1&access_token=top-secret-7"}, "url", "parameter 'access_token'"),
        ({"address": "https://h/x?key=top-secret-7"}, "address", "parameter 'key'"),
    ],
)
def test_a_document_with_a_secret_is_refused(
    settings: dict[str, object], path: str, named: str, changes: dict[str, object]
) -> None:
    [(where, what)] = refused(settings, **changes)
    assert where == f"datasources[0].settings.{path}"
    assert named in what and "credential profile" in what and "credentialProfileId" in what


@pytest.mark.parametrize("headers", ["{", "X-Plant: north", "Authorization: Bearer top-secret-7"])
def test_headers_that_cannot_be_read_are_refused(headers: str) -> None:
    assert refused({"headers": headers}) == [("datasources[0].settings.headers", "a JSON object")]


@pytest.mark.parametrize(
    "settings",
    [
        {
            "headers": {"Accept": "text/plain", "User-Agent": "tidegate", "X-Plant": "north"},
            "url": "https://h/x?rate=5",
        },
        {"headers": '{"X-Keyboard": "de"}', "url": "wss://token.example/key?monkey=1"},
        {"headers": None, "url": "https://h"},
        {"headers": " ", "credentialProfileId": "p", "authPlacement": "query", "queryParamName": "token"},
    ],
)
def test_what_carries_no_secret_is_accepted(settings: dict[str, object]) -> None:
    assert refused(settings) == []
