"""What `make cost` reckons: known bills by hand, what changes what, and what it says to people and programs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ops import cost, units
from ops.cost_load import BROKER, DEVICE, PROTOCOLS, SERVICE, SSE, Load, LoadError
from ops.cost_model import FRAME_BYTES, PARTS, RELAY, REST, VALUES, estimate, service_from
from ops.cost_others import others
from ops.cost_turns import turns
from ops.prices import MEMORY, PRICES, Price, PriceError, Tier, changed
from tidegate.protocol import messages

LOADS = [Load(protocol=protocol, updates=updates) for protocol in PROTOCOLS for updates in (0.01, 1, 50)]
LOADS += [replace(load, batches=True, history=True, together=False) for load in LOADS]
LOADS += [Load(viewers=0), Load(hours=0), Load(visits=0), Load(protocol=SSE, relay=SERVICE), Load(dashboards=1)]


def ask(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = cost.main(list(arguments))
    told = capsys.readouterr()
    return code, told.out, told.err


# --- prices -----------------------------------------------------------------------------------------------------


def test_every_price_says_where_it_is_from_and_how_it_was_checked() -> None:
    for name, price in PRICES.items():
        assert price.url and price.checked and price.date.startswith("20"), name
        assert price.tiers[-1].up_to == float("inf") and price.per > 0, name
        tiers = [tier.up_to for tier in price.tiers]
        assert tiers == sorted(set(tiers)), name
    assert MEMORY in PRICES["secret"].source


def test_tiers_are_charged_each_for_its_part() -> None:
    price = Price("x", 10, "things", (Tier(100, 2.0), Tier(300, 1.0), Tier(float("inf"), 0.5)), "u", "c")
    assert [price.of(count) for count in (0, 50, 100, 200, 300, 500)] == [0, 10, 20, 30, 40, 50]


def test_a_price_that_is_given_takes_the_place_of_its_tiers() -> None:
    mine = changed(PRICES, {"websocket_message": 2}, "mine.json")
    assert mine["websocket_message"].of(5e9) == 10_000 and mine["sqs_request"] == PRICES["sqs_request"]
    assert mine["websocket_message"].source.startswith("given by mine.json")


@pytest.mark.parametrize(
    "given", [{"x": 1}, {"secret": -1}, {"secret": "1"}, {"secret": True}, {"secret": float("nan")}]
)
def test_what_is_no_price_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(PriceError, match="allowed"):
        changed(PRICES, given, "x")


# --- bills ------------------------------------------------------------------------------------------------------


def test_a_bill_by_hand() -> None:
    """One viewer of one datasource of a feed, all day, one value a second: 2,592,000 messages."""
    load = Load(viewers=1, hours=24, visits=1, dashboards=1, datasources=1, protocol=SSE)
    found, month_s = estimate(load, PRICES), 30 * 86_400
    values = [line for line in found.lines if line.part == VALUES]
    assert sum(line.quantity for line in values if line.price == "websocket_message") == month_s
    # The last value, and an ask of the quota each second.
    assert sum(line.quantity for line in values if line.price == "dynamodb_write") == 2 * month_s
    assert found.quantity("websocket_minute") == month_s / 60
    # A worker for the one partition, with its successors: 900 seconds in each 855.
    (worker,) = [line for line in found.lines if (line.part, line.price) == (RELAY, "lambda_gb_s")]
    assert worker.quantity == pytest.approx(month_s * 900 / 855)
    assert found.charges["websocket_minute"] == pytest.approx(43_200 / 1e6 * 0.25)


def test_a_bill_of_a_device_by_hand() -> None:
    load = Load(viewers=0, dashboards=1, datasources=1)
    found, month_s = estimate(load, PRICES), 30 * 86_400
    for price in ("iot_message", "iot_rule", "iot_action"):
        assert found.quantity(price) == month_s
    values = [line.quantity for line in found.lines if (line.part, line.price) == (VALUES, "dynamodb_write")]
    assert values == [month_s * units.DEVICE_VALUE.writes], "nobody is sent anything, so no quota is asked"


@pytest.mark.parametrize("load", LOADS, ids=str)
def test_parts_and_charges_are_the_same_sum(load: Load) -> None:
    found = estimate(load, PRICES)
    assert sum(found.parts.values()) == pytest.approx(found.total)
    assert all(line.quantity > 0 and line.price in PRICES and line.part in PARTS for line in found.lines)
    assert found.total < float("inf") and all(each.total(PRICES) >= 0 for each in others(load))


def test_a_stage_at_rest_is_all_that_is_left_without_viewers() -> None:
    found = estimate(Load(viewers=0, hours=0, source_hours=0, protocol=SSE), PRICES)
    assert found.total == pytest.approx(found.parts[REST]) and found.parts[REST] > 0


@pytest.mark.parametrize("name", ["viewers", "datasources", "updates", "hours", "value_bytes"])
@pytest.mark.parametrize("protocol", [DEVICE, BROKER])
def test_more_costs_more(name: str, protocol: str) -> None:
    less = Load(protocol=protocol)
    more = replace(less, **{name: getattr(less, name) * 3})
    assert estimate(more, PRICES).total > estimate(less, PRICES).total


def test_conflation_bounds_what_viewers_are_sent() -> None:
    fast = [Load(updates=updates, per_second=5, protocol=SSE) for updates in (5, 50)]
    assert fast[0].messages == fast[1].messages
    assert Load(updates=50, per_second=0, protocol=SSE).messages == 10 * fast[0].messages
    assert estimate(fast[0], PRICES).total == pytest.approx(estimate(fast[1], PRICES).total)


@pytest.mark.parametrize("protocol", [DEVICE, SSE])
@pytest.mark.parametrize("updates", [0.1, 1, 9, 100])
@pytest.mark.parametrize("dashboards", [1, 10])
def test_batches_never_take_more_messages_and_never_lose_frames(
    protocol: str, updates: float, dashboards: float
) -> None:
    single = Load(protocol=protocol, updates=updates, dashboards=dashboards)
    batched = replace(single, batches=True)
    assert batched.messages <= batched.deliveries <= single.deliveries * (1 + 1e-9)


def test_thirty_values_a_second_of_a_viewer_are_one_message_of_a_batch() -> None:
    load = Load(viewers=1, dashboards=1, datasources=30, batches=True)
    assert load.batch[:2] == (1, 30)
    assert load.messages == pytest.approx(load.watched_s)


def test_the_relay_crosses_where_both_cost_the_same() -> None:
    load = Load(protocol=SSE)
    hours = service_from(load, PRICES)
    bills = [
        estimate(replace(load, hours=hours, relay=relay), PRICES).parts[RELAY] for relay in ("function", "service")
    ]
    assert 0 < hours < 24 and bills[0] == pytest.approx(bills[1])
    dear = changed(PRICES, {"fargate_vcpu_hour": 10.0}, "x")
    assert service_from(load, dear) > 24


def test_the_task_grows_with_what_the_relay_carries() -> None:
    sizes = [Load(protocol=SSE, dashboards=1, viewers=viewers).task for viewers in (1, 1000, 3000)]
    assert sizes == sorted(sizes) and len(set(sizes)) > 1
    assert Load(protocol=SSE, service_cpu=512).task == (512, 1024)


def test_a_frame_is_as_large_as_is_reckoned() -> None:
    """With an id of a datasource, and a `seq` with the id of a message, as long as usual."""
    value = "1" * 200
    seq = "001795732384185-5bd64fc7-ad90-4c84-8e24-9f2a6fbb91d1"
    frame = messages.data("temperature", value, 1795732384.0, seq)
    assert abs(len(frame) - len(value) - FRAME_BYTES) <= 15


# --- turns and others -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("load", LOADS, ids=str)
def test_what_can_be_turned_is_something_else_than_now(load: Load) -> None:
    for turn in turns(load):
        assert turn.load != load and turn.name
    keys = [turn.key for turn in turns(load)]
    assert len(keys) == len(set(keys))


def test_what_costs_less_when_turned() -> None:
    load = Load(protocol=SSE, updates=3, history=True, together=False)
    now = estimate(load, PRICES).total
    cheaper = {turn.key for turn in turns(load) if estimate(turn.load, PRICES).total < now}
    assert cheaper >= {"per_second", "batches", "updates", "history", "together", "session_s", "hours", "relay"}


def test_others_by_hand() -> None:
    load = Load(viewers=10, hours=1, visits=1, dashboards=1, datasources=1, protocol=SSE, value_bytes=100)
    seconds = 30 * 3600
    totals = {each.name: each.total(PRICES) for each in others(load)}
    minutes, gb = 10 * seconds / 60, 10 * seconds * (100 + FRAME_BYTES) / 1024**3 * 0.09
    connects = load.connections * 2
    assert totals["AWS AppSync Events"] == pytest.approx((11 * seconds + connects) / 1e6 + minutes / 1e6 * 0.08 + gb)
    assert totals["AWS IoT Core over WSS"] == pytest.approx((11 * seconds + connects) / 1e6 + minutes / 1e6 * 0.08 + gb)
    ably = 29 + 11 * seconds / 1e6 * 2.5 + (minutes + seconds / 60) / 1e6
    assert totals["Ably, Standard package"] == pytest.approx(ably)


# --- the command ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [[], ["--lines", "--sources", "--protocol", "sse", "--history", "--batches"]])
def test_the_tables_line_up(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    code, out, _ = ask(capsys, *arguments)
    assert code == 0 and max(map(len, out.splitlines())) <= 300
    bill = out.split("\n\n")[0].splitlines()
    ends = {len(line[: line.rindex("%") + 1]) for line in bill[1:-1]}
    assert len(ends) == 1 and bill[0].split() == ["by", "part", "$", "a", "month", "share"]
    assert "Free tiers are not subtracted" in out and "AppSync" in out and "Ably" in out


def test_json_has_all_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = ask(capsys, "--json", "--protocol", "sse", "--viewers", "7", "--no-together")
    answer = json.loads(out)
    assert (answer["load"]["viewers"], answer["load"]["together"]) == (7, False)
    assert answer["dollars"] == pytest.approx(sum(answer["parts"].values()))
    assert answer["prices"].keys() == PRICES.keys() and answer["prices"]["secret"]["source"]
    assert 0 < answer["serviceFromHours"] < 24 and len(answer["others"]) == 3 and answer["turns"]["hours"] > 0


def test_prices_of_a_file_and_of_an_option(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    mine = tmp_path / "mine.json"
    mine.write_text('{"sqs_request": 5, "secret": 7}')
    _, out, _ = ask(capsys, "--json", "--prices", str(mine), "--price", "secret=9", "--assume", "bridge=0.5")
    answer = json.loads(out)
    given = {name: answer["prices"][name]["dollars"] for name in ("sqs_request", "secret", "kms_key")}
    assert given == {"sqs_request": 5, "secret": 9, "kms_key": 1} and answer["assumedSeconds"]["bridge"] == 0.5


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--hours", "25"], "hours=25; allowed: 0 to 24"),
        (["--dashboards", "0"], "dashboards=0; allowed: 1"),
        (["--viewers", "nan"], "viewers=nan"),
        (["--service-cpu", "300"], "service_cpu=300"),
        (["--price", "sqs=1"], "no price is called 'sqs'"),
        (["--price", "secret"], "allowed: a name and dollars"),
        (["--prices", "/none.json"], "none.json: cannot be read"),
        (["--assume", "x=1"], "allowed: connect"),
        (["--assume", "bridge=long"], "a name and seconds"),
        (["--assume", "bridge=1000"], "0 to 900"),
    ],
)
def test_what_is_wrong_is_told_in_a_line(capsys: pytest.CaptureFixture[str], arguments: list[str], told: str) -> None:
    code, out, err = ask(capsys, *arguments)
    assert (code, out) == (1, "") and err.startswith("error: ") and told in err and err.count("\n") == 1


def test_a_load_above_the_accounts_quota_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert "requests a second" in ask(capsys, "--viewers", "20000")[1]
    assert "requests a second" not in ask(capsys, "--viewers", "2")[1]


def test_a_load_is_checked_when_it_is_made() -> None:
    with pytest.raises(LoadError, match="protocol='x'; allowed: mqtt-device"):
        Load(protocol="x")
