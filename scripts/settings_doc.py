"""Write docs/reference/settings.md from the settings package; the page says how.

Groups and their headings, defaults and effects are those of `tidegate.settings`. What is allowed is what a parser
itself says when it refuses a value. A test keeps page and code equal.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from tidegate.domain.limits import MAX_GATEWAY_LIMIT
from tidegate.settings import GROUPS, MESSAGE_BUDGET_MS, Setting

TARGET = Path(__file__).resolve().parent.parent / "docs/reference/settings.md"
#: No parser accepts it: no word, number, list or address has a control character.
_REFUSED = "a \0"

_HEAD = """# Settings

Settings are environment variables of the functions. A stage sets them in `infra/stages/<stage>.json`. The CDK app
checks them when it synthesises the stage, and the functions check them at a cold start, with the same code
(`tidegate.settings`). A value that does not parse or is out of range stops both. The message names the variable, the
value and what is allowed. Nothing falls back to a default silently. An empty value counts as unset.

Secrets are not settings. They are generated in Secrets Manager, and functions get their ARNs.

The name of a duration ends in its unit: `_MS` is milliseconds, `_SECONDS` is seconds. A name that ends in `_PER_MIN`
is a limit for each minute. Where `true` and `false` are allowed, so are 1, yes, on, 0, no and off. How to add one:
[add a setting](../start/add-a-setting.md).

This page is generated. After a change of the settings, run:

    PYTHONPATH=layers/tidegate/python:. .venv/bin/python scripts/settings_doc.py

"""


_TOGETHER = """
## Values that do not go together

Each of these stops the synthesis and the functions, as a single wrong value does.

- `REALTIME_TRUST_PROXY_HOPS` and `API_TRUST_PROXY_HOPS` must be equal: the same proxies stand before both.
- `REALTIME_RECONNECT_MIN_MS` must not be above `REALTIME_RECONNECT_MAX_MS`.
- In production, `EGRESS_ALLOWED_HOSTS` is needed, unless `REALTIME_SSE_ENABLED` and `REALTIME_WS_ENABLED` are both
  off. A production stage may not connect just anywhere.
- In production, `SECURITY_LIMITER_BACKEND` must not be `memory`. It would count in each process apart.
- In production, `EGRESS_ALLOW_INSECURE_TLS` must be off.
- In production, `GATEWAY_API_BASE_URL` must begin with `https://`, unless it is on this host. The service token would
  travel in clear.
- With `GATEWAY_API_BASE_URL`, `GATEWAY_LIMITER_TIMEOUT_MS` and `GATEWAY_INTROSPECTION_TIMEOUT_MS` together must be at
  most {budget}. A subscribe waits for both.
- With `GATEWAY_API_BASE_URL`, these must be at most {limit}, the largest limit that a remote API counts against:
  `REALTIME_CONNECT_RATE_LIMIT_IP_PER_MIN`, `REALTIME_PUBLIC_SUBSCRIBE_RATE_LIMIT_IP_PER_MIN` and
  `REALTIME_PUBLIC_SUBSCRIBE_RATE_LIMIT_SHARE_TOKEN_PER_MIN`.
"""


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |\n"


def heading(group: type) -> str:
    """The group's name in words: `RemoteApiSettings` -> `Remote API`."""
    words = re.sub(r"(?<!^)(?=[A-Z])", " ", group.__name__.removesuffix("Settings"))
    return words.capitalize().replace("api", "API")


def allowed(setting: Setting) -> str:
    """What its parser allows, in the parser's own words.

    Raises:
        AssertionError: the parser takes any text, or does not say what is allowed.
    """
    try:
        setting.parse(_REFUSED)
    except ValueError as error:
        found = re.search(r"allowed: (.+?)(?:;| \(also|$)", str(error))
        assert found, f"{setting.variable} does not say what is allowed: {error}"
        return found[1].removeprefix("a whole number from ").replace("|", "\\|")
    raise AssertionError(f"{setting.variable} takes any text")


def _group(group: type) -> str:
    heads = ["variable", "default", "allowed", "effect"]
    lines = f"\n## {heading(group)}\n\n{group.__doc__}\n\n" + _row(heads) + _row(["---"] * len(heads))
    for item in fields(group):
        setting: Setting = item.metadata["setting"]
        shown = setting.shown_default
        default = shown if shown == "empty" or " " in shown else f"`{shown}`"
        lines += _row([f"`{setting.variable}`", default, allowed(setting), setting.effect])
    return lines


def render() -> str:
    """The whole page."""
    together = _TOGETHER.format(budget=MESSAGE_BUDGET_MS, limit=MAX_GATEWAY_LIMIT)
    return _HEAD + "".join(_group(group) for group in GROUPS) + together


if __name__ == "__main__":
    TARGET.write_text(render())
