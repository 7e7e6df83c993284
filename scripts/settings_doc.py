"""Write docs/reference/settings.md from the settings package; the page says how.

Groups and their headings, defaults and effects are those of `tidegate.settings`. What is allowed is what a parser
itself says when it refuses a value. A test keeps page and code equal.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path

from scripts.markdown import row
from scripts.settings_readers import CDK_APP, readers
from tidegate.domain.limits import MAX_GATEWAY_LIMIT
from tidegate.domain.time_limits import FUNCTION_S, MESSAGE_BUDGET_MS
from tidegate.settings import GROUPS, Setting
from tidegate.settings.together import POLLS_KEPT

TARGET = Path(__file__).resolve().parent.parent / "docs/reference/settings.md"
#: No parser accepts it: no word, number, list or address has a control character.
_REFUSED = "a \0"

_HEAD = """# Settings

Settings are environment variables of the functions. A stage sets them in `infra/stages/<stage>.json`. The CDK app
checks them when it synthesises the stage, and the functions check them at a cold start, with the same code
(`tidegate.settings`). A value that does not parse or is out of range stops both. The message names the variable, the
value and what is allowed. Nothing falls back to a default silently. An empty value counts as unset.

Secrets are not settings. They are generated in Secrets Manager, and functions get their ARNs.

In a stage file, numbers and switches may be JSON values: `5`, `false`. Where `true` and `false` are allowed, so are 1,
yes, on, 0, no and off. How to add one: [add a setting](../start/add-a-setting.md).

**Read by** names the functions whose work depends on the setting, as files of `functions/`. All functions check all
settings. **Holds** says how soon a change holds, counted from the end of the deployment:

| holds | meaning |
| --- | --- |
| at once | for every call that begins after it. One that has begun ends with the old value, within {longest} seconds. |
| two minutes | as above, and in the relay within two minutes, when a worker hands over to one with new settings. |
| at the start | it is only checked, when a function starts. |
| something *after* | for what is made after it. What is there already keeps the old value. |

[Switches](../concepts/revocation.md#switches) says how viewers of what is switched off are told, and what happens to
those whom a function with the old settings admits late.

This page is generated. After a change of the settings, run:

    PYTHONPATH=layers/tidegate/python:. .venv/bin/python scripts/settings_doc.py

"""


_TOGETHER = """
## Values that do not go together

Each of these stops the synthesis and the functions, as a single wrong value does.

- `REALTIME_TRUST_PROXY_HOPS` and `API_TRUST_PROXY_HOPS` must be equal: the same proxies stand before both.
- `AUTH_LOGIN_TTL_SECONDS` must not be above `AUTH_LOGIN_MAX_SECONDS`.
- `AUTH_LOGIN_MAX_ATTEMPTS` must not be above `AUTH_LOGIN_ACCOUNT_MAX_ATTEMPTS`.
- `REALTIME_RECONNECT_MIN_MS` must not be above `REALTIME_RECONNECT_MAX_MS`.
- Entries of `REALTIME_MQTT_ALLOWED_TOPICS` below `REALTIME_IOT_TOPIC_PREFIX` have AWS IoT Core's limits: 256 bytes and
  seven slashes. Others have those of MQTT.
- `REALTIME_MQTT_BATCHED_TOPICS` must be entries of `REALTIME_MQTT_ALLOWED_TOPICS` below `REALTIME_IOT_TOPIC_PREFIX`.
- In production, `EGRESS_ALLOWED_HOSTS` is needed, unless `REALTIME_SSE_ENABLED` and `REALTIME_WS_ENABLED` are both
  off. A production stage may not connect just anywhere.
- In production, `SECURITY_LIMITER_BACKEND` must not be `memory`. It would count in each process apart.
- In production, `EGRESS_ALLOW_INSECURE_TLS` must be off.
- In production, `GATEWAY_API_BASE_URL` must begin with `https://`, unless it is on this host. The service token would
  travel in clear.
- `REALTIME_REVOKE_EVENT_RETENTION_SECONDS` must be at least {polls} times `REALTIME_PUBLIC_REVALIDATE_INTERVAL_MS`. One
  poll may be late, and one may fail.
- `DATASOURCE_TOKEN_MINT_RATE_LIMIT_SHARE_TOKEN_PER_MIN` must be at least twice
  `REALTIME_MAX_CONNECTIONS_PER_DASHBOARD`. All connections of a dashboard may come at once, and hostile addresses may
  spend as much. With `GATEWAY_API_BASE_URL` the same holds for
  `REALTIME_PUBLIC_SUBSCRIBE_RATE_LIMIT_SHARE_TOKEN_PER_MIN`.
- In production, `EGRESS_ALLOWED_HOSTS` must not have `*`, which matches nothing there.
- `REALTIME_TRUST_PROXY_HOPS` and `API_TRUST_PROXY_HOPS` must be what `TIDEGATE_PROXIES` says is in front, unless the
  stage file has `"hops_confirmed": true`. It may not have it when they are.
- With `TIDEGATE_PRODUCTION_STAGE`, `TIDEGATE_ENV` must not be lenient. A stage that is not `disposable` is one.
- In production, `REALTIME_LIMITER_FAILURE_MODE` and `SECURITY_LIMITER_FAILURE_MODE` must not be `fail-open`, and
  `EGRESS_ALLOW_PRIVATE_DESTINATIONS` must be off, unless the stage file gives a reason:
  `"exceptions": {{"NAME": "why"}}`. A reason that is not needed is refused as well. Functions see the name in
  `TIDEGATE_EXCEPTIONS`.
- With `GATEWAY_API_BASE_URL`, `GATEWAY_LIMITER_TIMEOUT_MS` and `GATEWAY_INTROSPECTION_TIMEOUT_MS` together must be at
  most {budget}. A subscribe waits for both.
- With `GATEWAY_API_BASE_URL`, these must be at most {limit}, the largest limit that a remote API counts against:
  `REALTIME_CONNECT_RATE_LIMIT_IP_PER_MIN`, `REALTIME_PUBLIC_SUBSCRIBE_RATE_LIMIT_IP_PER_MIN` and
  `REALTIME_PUBLIC_SUBSCRIBE_RATE_LIMIT_SHARE_TOKEN_PER_MIN`.
"""


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


def held(setting: Setting, by: Sequence[str]) -> str:
    """How soon a change of the setting holds, given who reads it."""
    if setting.holds:
        return setting.holds
    if "relay.worker" in by:
        return "two minutes"
    return "at once" if by else "at the start"


def _group(group: type, read_by: Mapping[str, Sequence[str]]) -> str:
    heads = ["variable", "default", "allowed", "unit", "effect", "read by", "holds"]
    lines = f"\n## {heading(group)}\n\n{group.__doc__}\n\n" + row(heads) + row(["---"] * len(heads))
    for item in fields(group):
        setting: Setting = item.metadata["setting"]
        shown = setting.shown_default
        default = shown if shown == "empty" or " " in shown else f"`{shown}`"
        by = read_by[setting.variable]
        named = ", ".join(name if name == CDK_APP else f"`{name}`" for name in by) or "none"
        lines += row(
            [
                f"`{setting.variable}`",
                default,
                allowed(setting),
                setting.unit or "-",
                setting.effect,
                named,
                held(setting, by),
            ]
        )
    return lines


def render() -> str:
    """The whole page."""
    head = _HEAD.format(longest=max(limit for name, limit in FUNCTION_S.items() if name != "relay.worker"))
    together = _TOGETHER.format(budget=MESSAGE_BUDGET_MS, limit=MAX_GATEWAY_LIMIT, polls=POLLS_KEPT)
    read_by = readers()
    return head + "".join(_group(group, read_by) for group in GROUPS) + together


if __name__ == "__main__":
    TARGET.write_text(render())
