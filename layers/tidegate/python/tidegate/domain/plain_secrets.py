"""Secrets in plain sight: names of headers and of URL parameters that carry a secret, and user info in a URL.

A document is shown to everybody who may edit it, and is stored as it is. So a secret has no place in it. It belongs
into a credential profile.

The rule looks at names only, and takes a name apart into words: `X-Api-Key`, `apiKey`, `api_key` and `apikey` are the
words `api` and `key`. `X-Keyboard` has another word, and so has `monkey`.

Invariant of this file: how a name is written, in capitals or not, percent-encoded or not, does not change the answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from urllib.parse import unquote_plus

#: A name with one of these words carries a secret.
_SECRET = (
    *("auth", "oauth", "authorization", "authorisation", "authentication", "bearer", "jwt", "cookie"),
    *("secret", "password", "passwd", "passphrase", "passcode", "pwd", "credential", "credentials"),
    *("signature", "sig", "hmac", "sessionid", "sessid"),
)
#: These carry one too, unless the word before says that it is a key or a token of another kind.
_KEYS = ("key", "token")
_OTHER_KEYS = frozenset(
    {
        *("idempotency", "partition", "routing", "sort", "cache", "surrogate", "message", "row"),
        *("page", "next", "continuation", "resume", "sync", "cursor", "max", "public"),
    }
)
#: Only as the last word: `X-Pass-Through` is none, `user_pass` is one.
_LAST = frozenset({"pass", "pw"})
#: Words that people write together with a key or a secret, as in `apikey`.
_BEFORE = (
    *("access", "account", "admin", "api", "app", "application", "auth", "client", "consumer", "db", "device", "id"),
    *(
        "login",
        "master",
        "my",
        "pass",
        "private",
        "refresh",
        "sas",
        "secret",
        "service",
        "session",
        "shared",
        "signing",
    ),
    *("subscription", "user", "x", "xsrf", "csrf", "php", "j", "asp"),
)

_TOGETHER = re.compile(
    rf"(?:{'|'.join(sorted(_BEFORE, key=len, reverse=True))})*(?P<last>{'|'.join((*_SECRET, *_KEYS, *_LAST))})"
)
#: Parsers of URLs drop them.
_BREAKS = re.compile(r"[\t\r\n]")
_HUMP = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


def names_secret(name: str) -> bool:
    """Whether a header or a parameter of this name carries a secret."""
    return any(_any_secret(words) for words in _readings(name))


def secret_parameters(url: str) -> Iterator[str]:
    """The names of parameters of a URL that carry a secret, decoded, in their order.

    Parameters are those of the query, of each segment of the path (`;name=value`), and of a fragment that looks like a
    query, as `#access_token=...` does.
    """
    address, _, fragment = _BREAKS.sub("", url).partition("#")
    path, _, query = address.partition("?")
    parts = [*query.split("&"), *(fragment.split("&") if "=" in fragment else ())]
    parts = [each for part in parts for each in part.split(";")]
    parts += [each for segment in path.split("/") for each in segment.split(";")[1:]]
    for part in parts:
        name = unquote_plus(part.partition("=")[0])
        if names_secret(name):
            yield name


def has_user_info(url: str) -> bool:
    """Whether the URL names a user, with a password or without: everything before an `@` in its authority.

    A backslash is read as a slash, as some programs do, and any number of slashes begins an authority.
    """
    found = re.match(r"\s*(?:[A-Za-z][A-Za-z0-9+.-]*:)?[/\\]*(?P<authority>[^/\\?#]*)", _BREAKS.sub("", url))
    return found is not None and "@" in found["authority"]


def _readings(name: str) -> Iterator[list[str]]:
    """The words of a name: cut at what is no letter, and cut at capitals as well."""
    rough = [part for part in re.split(r"[^A-Za-z]+", name) if part]
    yield [part.lower() for part in rough]
    yield [word.lower() for part in rough for word in _HUMP.split(part)]


def _any_secret(words: list[str]) -> bool:
    pairs = (_TOGETHER.fullmatch(one + other) for one, other in pairwise(words))
    if any(found and found["last"] not in _LAST for found in pairs):
        return True
    for index, word in enumerate(words):
        found = _TOGETHER.fullmatch(word)
        other_key = index > 0 and word in _KEYS and words[index - 1] in _OTHER_KEYS
        if found and not other_key and (found["last"] not in _LAST or index == len(words) - 1):
            return True
    return False
