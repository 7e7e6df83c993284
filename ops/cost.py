"""Price a described load: `make cost OPTIONS="--viewers 500 --protocol sse"`."""

from __future__ import annotations

import argparse
import json
import sys
import textwrap
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from local_stack.show import table
from ops.cost_load import PROTOCOLS, RELAYS, Load, LoadError, load_of
from ops.cost_model import ASSUMED_S, PARTS, Estimate, estimate, service_from
from ops.cost_others import Other, others
from ops.cost_turns import turns
from ops.prices import PRICES, PriceError, Prices, changed, pair, read_prices

#: What every answer says of itself.
NOTES = (
    "A month of 30 days at list prices of us-east-1, without taxes. Free tiers are not subtracted.",
    "Dollars are shown in cents, and added before they are rounded.",
    "Requests are those that tests measure. How long functions run is assumed: it was never measured on AWS.",
)


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        load = load_of({each.name: getattr(options, each.name) for each in fields(Load)})
        given = {**(read_prices(options.prices) if options.prices else {}), **dict(map(pair, options.price))}
        prices = changed(PRICES, given, "--prices or --price")
        assumed = _assumed(options.assume)
    except (LoadError, PriceError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    found = estimate(load, prices, assumed)
    compared = others(load)
    if options.json:
        print(json.dumps(as_json(found, compared, prices, assumed), indent=2))
        return 0
    print("\n\n".join(shown(found, compared, prices, assumed, lines=options.lines, sources=options.sources)))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make cost OPTIONS=...", description=__doc__)
    number = {"type": float, "metavar": "N"}
    for each in fields(Load):
        name, default = f"--{each.name.replace('_', '-')}", each.default
        if each.name in _CHOICES:
            parser.add_argument(name, default=default, choices=_CHOICES[each.name], help=f"{_HELP[each.name]}")
        elif isinstance(default, bool):
            action = argparse.BooleanOptionalAction
            parser.add_argument(name, default=default, action=action, help=_HELP[each.name])
        else:
            parser.add_argument(name, default=default, help=f"{_HELP[each.name]} ({default:g})", **number)  # type: ignore[arg-type]
    parser.add_argument("--prices", type=Path, help="a JSON file: name of a price -> dollars")
    parser.add_argument("--price", action="append", default=[], metavar="NAME=DOLLARS", help="a price; may be repeated")
    parser.add_argument(
        "--assume", action="append", default=[], metavar="NAME=SECONDS", help="how long a function runs"
    )
    parser.add_argument("--lines", action="store_true", help="show every line of the bill")
    parser.add_argument("--sources", action="store_true", help="show every price that is used, and where it is from")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    return parser


_CHOICES: Mapping[str, tuple[str, ...]] = {"protocol": PROTOCOLS, "relay": RELAYS}
_HELP = {
    "viewers": "who watch at the same time",
    "hours": "hours a day in which they watch",
    "visits": "how often each opens a dashboard in a day",
    "dashboards": "dashboards that are watched at the same time",
    "datasources": "datasources of each dashboard",
    "updates": "values of a datasource in a second",
    "value_bytes": "bytes of a value",
    "protocol": "who brings the values: devices, or upstreams of the relay",
    "source_hours": "hours a day in which devices publish",
    "devices": "connected devices; 0: one for each dashboard",
    "per_second": "REALTIME_MAX_UPDATES_PER_SECOND; 0 sends all",
    "batches": "topics in REALTIME_MQTT_BATCHED_TOPICS, and batch frames",
    "history": "datasources have a history",
    "session_s": "DATASOURCE_SESSION_TTL_SECONDS",
    "together": "one token for a dashboard, not one for each datasource",
    "relay": "how the relay runs",
    "service_cpu": "CPU units of the relay's task: 256, 512, 1024; 0: the least that carries the load",
    "log_days": "how long logs are kept, days",
    "metrics": "metrics of our own",
}


def _assumed(given: list[str]) -> Mapping[str, float]:
    made = dict(ASSUMED_S)
    for text in given:
        name, _, seconds = text.partition("=")
        if name not in made:
            raise LoadError(f"--assume {text!r}: allowed: {', '.join(made)}")
        try:
            made[name] = float(seconds)
        except ValueError as error:
            raise LoadError(f"--assume {text!r}: allowed: a name and seconds, such as bridge=0.05") from error
        if not 0 <= made[name] <= 900:
            raise LoadError(f"--assume {text!r}: allowed: 0 to 900 seconds")
    return made


def dollars(amount: float) -> str:
    """Two digits after the point: `1,234.50`."""
    return f"{amount:,.2f}"


def quantity(amount: float) -> str:
    """Short, three digits: `25.9M`."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if amount >= size:
            return f"{amount / size:.3g}{unit}" if amount < 1000 * size else f"{amount / size:,.0f}{unit}"
    return f"{amount:.3g}"


def _right(rows: list[tuple[str, ...]], *columns: int) -> str:
    """A table whose columns of numbers end at the same place."""
    widths = {column: max(len(row[column]) for row in rows) for column in columns}
    return table([[c.rjust(widths[at]) if at in widths else c for at, c in enumerate(row)] for row in rows])


def shown(
    found: Estimate,
    compared: tuple[Other, ...],
    prices: Prices,
    assumed: Mapping[str, float] = ASSUMED_S,
    *,
    lines: bool = False,
    sources: bool = False,
) -> list[str]:
    """The answer in pieces, for people."""
    pieces = [_parts(found), _charges(found, prices)]
    if lines:
        every: list[tuple[str, ...]] = [("part", "what", "price", "quantity")]
        every += [(line.part, line.why, line.price, quantity(line.quantity)) for line in found.lines]
        pieces.append(_right(every, 3))
    turned: list[tuple[str, ...]] = [("to pay less", "$ a month", "changes by")]
    for turn in turns(found.load):
        other = estimate(turn.load, prices, assumed).total
        turned.append((turn.name, dollars(other), dollars(other - found.total)))
    pieces.append(_right(turned, 1, 2))
    beside: list[tuple[str, ...]] = [("the same load", "$ a month"), ("Tidegate", dollars(found.total))]
    beside += [(each.name, dollars(each.total(prices))) for each in compared]
    pieces.append(_right(beside, 1))
    pieces.append("\n".join(_paragraph(f"{each.name}: {' '.join(each.assumptions)}") for each in compared))
    if sources:
        names = [*found.charges, *(line[0] for each in compared for line in each.lines)]
        pieces.append(_sources(prices, list(dict.fromkeys(names))))
    return [*pieces, "\n".join(f"  {note}" for note in [*NOTES, *warnings(found, prices)])]


def _parts(found: Estimate) -> str:
    rows: list[tuple[str, ...]] = [("by part", "$ a month", "share")]
    rows += [(part, dollars(found.parts[part]), _percent(found.parts[part], found.total)) for part in PARTS]
    return _right([*rows, ("total", dollars(found.total), "")], 1, 2)


def _charges(found: Estimate, prices: Prices) -> str:
    charges = sorted(found.charges.items(), key=lambda item: -item[1])
    rows: list[tuple[str, ...]] = [("by price", "quantity", "$ a month")]
    rows += [(prices[name].what, quantity(found.quantity(name)), dollars(spent)) for name, spent in charges]
    return _right(rows, 1, 2)


def _sources(prices: Prices, names: list[str]) -> str:
    rows: list[tuple[str, ...]] = [("price", "$", "for", "source")]
    rows += [(name, f"{prices[name].first:g}", _per(prices, name), prices[name].source) for name in names]
    return _right(rows, 1)


def _paragraph(text: str) -> str:
    return textwrap.fill(text, 118, initial_indent="  ", subsequent_indent="    ")


def _per(prices: Prices, name: str) -> str:
    price = prices[name]
    return f"{price.per:,.0f} {price.unit}"


def _percent(part: float, total: float) -> str:
    return f"{part / total:.0%}" if total else "-"


def warnings(found: Estimate, prices: Prices) -> list[str]:
    """What the load would run into, and where the relay's two forms cross."""
    load, told = found.load, []
    if load.watched_s and load.messages / load.watched_s > 10_000:
        rate = load.messages / load.watched_s
        told.append(f"{rate:,.0f} messages a second are more than an account's 10,000 requests a second.")
    if load.cores:
        hours = service_from(load, prices)
        told.append(
            f"The relay is cheaper as a service from {hours:.1f} watched hours a day on."
            if hours <= 24
            else "The relay is cheaper as functions, however long somebody watches."
        )
        if load.cores > 1:
            told.append(f"The relay needs {load.cores:.1f} cores; two functions have 1.2, a service's process has one.")
    return told


def as_json(
    found: Estimate, compared: tuple[Other, ...], prices: Prices, assumed: Mapping[str, float]
) -> dict[str, Any]:
    """The answer for programs. Dollars are not rounded."""
    return {
        "load": asdict(found.load),
        "dollars": found.total,
        "parts": dict(found.parts),
        "lines": [line._asdict() for line in found.lines],
        "prices": {name: _price(prices, name) for name in prices},
        "charges": dict(found.charges),
        "turns": {turn.key: estimate(turn.load, prices, assumed).total for turn in turns(found.load)},
        "others": {
            each.name: {"dollars": each.total(prices), "assumptions": list(each.assumptions)} for each in compared
        },
        "serviceFromHours": service_from(found.load, prices) if found.load.cores else None,
        "assumedSeconds": dict(assumed),
        "notes": [*NOTES, *warnings(found, prices)],
    }


def _price(prices: Prices, name: str) -> dict[str, Any]:
    price = prices[name]
    return {"dollars": price.first, "per": price.per, "unit": price.unit, "source": price.source}


if __name__ == "__main__":
    sys.exit(main())
