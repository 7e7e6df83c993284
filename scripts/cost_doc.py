"""Write the figures of docs/operations/cost.md anew; the page says how.

What stands between `<!-- figures: NAME -->` and `<!-- end -->` is made from the same functions as `make cost`. A test
keeps page and code equal, so a price or a path that changes shows on the page.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from infra.alarm_table import alarms
from infra.concurrency import USUAL_PLACES
from ops.cost import dollars, quantity
from ops.cost_load import SERVICE_SIZES, SSE, Load
from ops.cost_model import PARTS, estimate, service_from
from ops.cost_others import others
from ops.cost_turns import turns
from ops.prices import PRICES
from ops.units import STANDING
from tidegate.settings import Settings

TARGET = Path(__file__).resolve().parent.parent / "docs/operations/cost.md"
_BLOCK = re.compile(r"(<!-- figures: (\w+) -->\n).*?(<!-- end -->)", re.S)

#: The loads of the page. Each is what `make cost` takes, so a reader can ask for it.
LOADS: Mapping[str, tuple[str, Load]] = {
    "office": ("10 viewers of 10 dashboards, a value in 5 seconds", Load(viewers=10, visits=1, updates=0.2)),
    "plant": ("100 viewers of 10 dashboards, a value a second", Load(history=True)),
    "feed": ("the same from server-sent events, 5 values a second", Load(protocol=SSE, updates=5, history=True)),
    "public": (
        "2,000 viewers of one public dashboard, an hour a day",
        Load(viewers=2000, dashboards=1, hours=1, visits=1, updates=0.5, protocol=SSE),
    ),
}


def options(load: Load) -> str:
    """What `make cost` is to be given for this load."""
    usual, given = Load(), []
    for name in Load.__slots__:
        value = getattr(load, name)
        if value == getattr(usual, name):
            continue
        option = name.replace("_", "-")
        if isinstance(value, bool):
            given.append(f"--{option}" if value else f"--no-{option}")
        else:
            given.append(f"--{option} {value:g}" if isinstance(value, int | float) else f"--{option} {value}")
    return " ".join(given)


def _table(rows: Sequence[Sequence[str]]) -> str:
    head, *body = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([head, "|---" * len(rows[0]) + "|", *body]) + "\n"


def _loads() -> str:
    rows = [("load", "`OPTIONS` of `make cost`")]
    return _table([*rows, *((text, f"`{options(load)}`") for text, load in LOADS.values())])


def _bills() -> str:
    rows: list[Sequence[str]] = [("$ a month", *PARTS, "total")]
    for text, load in LOADS.values():
        found = estimate(load, PRICES)
        rows.append((text, *(dollars(found.parts[part]) for part in PARTS), dollars(found.total)))
    return _table(rows)


#: What every account has each month for nothing, for ever: price -> how many. From memory of the public price list.
ALWAYS_FREE: Mapping[str, float] = {
    "alarm": 10,
    "cloudwatch_dashboard": 3,
    "kms_request": 20_000,
    "lambda_gb_s": 400_000,
    "lambda_request": 1e6,
    "log_gb": 5,
    "log_storage": 5,
    "metric": 10,
    "schedule": 14e6,
    "sqs_request": 1e6,
}
#: A stage that nobody watches and no device talks to.
IDLE = Load(viewers=0, source_hours=0, metrics=0)


def _idle() -> str:
    found = estimate(IDLE, PRICES)
    rows: list[Sequence[str]] = [("what", "quantity", "$ a month", "with what is always free")]
    total = 0.0
    for name, spent in sorted(found.charges.items(), key=lambda item: -item[1]):
        asked = found.quantity(name)
        left = PRICES[name].of(max(0.0, asked - ALWAYS_FREE.get(name, 0)))
        total += left
        rows.append((PRICES[name].what, quantity(asked), dollars(spent), dollars(left)))
    return _table([*rows, ("total", "", dollars(found.total), dollars(total))])


def _others() -> str:
    names = [each.name for each in others(Load())]
    rows: list[Sequence[str]] = [("$ a month", "Tidegate", *names)]
    for text, load in LOADS.values():
        mine = dollars(estimate(load, PRICES).total)
        rows.append((text, mine, *(dollars(each.total(PRICES)) for each in others(load))))
    return _table(rows)


def _assumptions() -> str:
    texts = (f"- **{each.name}.** {' '.join(each.assumptions)}" for each in others(Load()))
    return "".join(textwrap.fill(text, 118, subsequent_indent="  ") + "\n" for text in texts)


def _turns(name: str) -> str:
    load = LOADS[name][1]
    now = estimate(load, PRICES).total
    rows: list[Sequence[str]] = [("turned", "$ a month", "changes by")]
    for turn in turns(load):
        then = estimate(turn.load, PRICES).total
        rows.append((turn.name, dollars(then), dollars(then - now)))
    return _table(rows)


def _relay() -> str:
    load = Load(protocol=SSE)
    rows: list[Sequence[str]] = [("task", "$ a month, always on", "cheaper than functions from")]
    for cpu, memory_mb in SERVICE_SIZES.items():
        sized = replace(load, service_cpu=cpu)
        fixed = estimate(replace(sized, relay="service"), PRICES).parts["relay"]
        hours = service_from(sized, PRICES)
        least = f"{hours:.1f} watched hours a day" if hours <= 24 else "never"
        rows.append((f"{cpu} CPU units, {memory_mb:,} MB", dollars(fixed), least))
    return _table(rows)


def _prices() -> str:
    rows: list[Sequence[str]] = [("name", "what", "$", "for", "source")]
    for name, price in PRICES.items():
        each = " then ".join(f"{tier.dollars:.10f}".rstrip("0").rstrip(".") for tier in price.tiers)
        rows.append((f"`{name}`", price.what, each, f"{price.per:,.0f} {price.unit}", price.source))
    return _table(rows)


def _watching() -> str:
    listed = alarms(Settings(), USUAL_PLACES)
    of_versions = STANDING["alarm"] - sum(alarm.metrics for alarm in listed)
    each = [(f"`{alarm.name}`", alarm.alarms, alarm.metrics) for alarm in listed]
    each.append(("`new-version-fails`", of_versions, of_versions))
    rows: list[Sequence[str]] = [("alarm", "alarms", "metrics", "$ a month")]
    rows += [(name, str(made), str(read), dollars(PRICES["alarm"].of(read))) for name, made, read in each]
    boards = STANDING["cloudwatch_dashboard"]
    rows.append(("the dashboard in CloudWatch", "", "", dollars(PRICES["cloudwatch_dashboard"].of(boards))))
    total = PRICES["alarm"].of(STANDING["alarm"]) + PRICES["cloudwatch_dashboard"].of(boards)
    rows.append(("together", str(sum(made for _, made, _ in each)), str(STANDING["alarm"]), dollars(total)))
    return _table(rows)


FIGURES: Mapping[str, Callable[[], str]] = {
    "loads": _loads,
    "bills": _bills,
    "idle": _idle,
    "others": _others,
    "assumptions": _assumptions,
    "turns_plant": lambda: _turns("plant"),
    "turns_feed": lambda: _turns("feed"),
    "relay": _relay,
    "watching": _watching,
    "prices": _prices,
}


def render(page: str) -> str:
    """The page with its figures made anew. Raises `KeyError` for figures that nobody makes."""
    return _BLOCK.sub(lambda found: f"{found[1]}\n{FIGURES[found[2]]()}\n{found[3]}", page)


if __name__ == "__main__":
    TARGET.write_text(render(TARGET.read_text()))
