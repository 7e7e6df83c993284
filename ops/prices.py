"""What AWS and others charge: every price with its unit, its source, and how well it was checked.

Prices are in US dollars, of us-east-1, without taxes, discounts and free tiers. Anybody who has other ones gives them:
`make cost OPTIONS="--price sqs_request=0.50 --prices mine.json"`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

#: How a price was checked. A page's numbers change without notice, so look at the page before you rely on one.
PROVIDER = "the provider's page"
THIRD_PARTY = "a page of somebody else that quotes the provider"
MEMORY = "from memory of the public price list, not verified"
#: A price that somebody gave to the command.
GIVEN = "given"

#: When the prices were written down, and when pages were read.
WRITTEN = "2026-11"
#: Units of a price: so many things cost so many dollars.
MILLION, GB = 1_000_000, 1
_NO_END = math.inf


class PriceError(ValueError):
    """A price that was given is not known, or is no price."""


class Tier(NamedTuple):
    """Dollars for one `per`, up to so many things a month in all."""

    up_to: float
    dollars: float


class Price(NamedTuple):
    """A price.

    Attributes:
        what: what it is for, as a person reads it.
        per: for how many of them the dollars of a tier are.
        unit: the name of one of them.
        tiers: rising; the last one has no end.
        url: the page where it stands.
        checked: how it was checked.
        date: when, year and month.
    """

    what: str
    per: float
    unit: str
    tiers: tuple[Tier, ...]
    url: str
    checked: str
    date: str = WRITTEN

    @property
    def first(self) -> float:
        """Dollars for one `per` in the first tier."""
        return self.tiers[0].dollars

    @property
    def source(self) -> str:
        """Where it is from, and how it was checked."""
        return f"{self.url}: {self.checked}, {self.date}" if self.url else f"{self.checked}, {self.date}"

    def of(self, quantity: float) -> float:
        """Dollars for so many in a month. Nothing is rounded."""
        dollars, begins = 0.0, 0.0
        for tier in self.tiers:
            within = max(0.0, min(quantity, tier.up_to) - begins)
            dollars += within / self.per * tier.dollars
            begins = tier.up_to
        return dollars


Prices = Mapping[str, Price]


def _price(what: str, per: float, unit: str, dollars: float, url: str, checked: str) -> Price:
    return Price(what, per, unit, (Tier(_NO_END, dollars),), url, checked)


def _tiers(*tiers: tuple[float, float]) -> tuple[Tier, ...]:
    return tuple(Tier(up_to, dollars) for up_to, dollars in tiers)


_GATEWAY = "aws.amazon.com/api-gateway/pricing"
_LAMBDA = "aws.amazon.com/lambda/pricing"
_DYNAMODB = "aws.amazon.com/dynamodb/pricing/on-demand"
_IOT = "aws.amazon.com/iot-core/pricing"
_CLOUDFRONT = "aws.amazon.com/cloudfront/pricing"
_CLOUDWATCH = "aws.amazon.com/cloudwatch/pricing"
_FARGATE = "aws.amazon.com/fargate/pricing"
_APPSYNC = "aws.amazon.com/appsync/pricing"
_ABLY = "ably.com/pricing"

PRICES: Prices = {
    # API Gateway. The provider's page says that a message is metered in pieces of 32 KB.
    "websocket_message": Price(
        "WebSocket messages, pieces of 32 KB",
        MILLION,
        "messages",
        _tiers((1e9, 1.00), (_NO_END, 0.80)),
        _GATEWAY,
        f"{THIRD_PARTY}; the second tier {MEMORY}",
    ),
    "websocket_minute": _price(
        "WebSocket connection minutes", MILLION, "minutes", 0.25, _GATEWAY, "a user's quotation of the provider's page"
    ),
    "http_request": Price(
        "HTTP API requests", MILLION, "requests", _tiers((300e6, 1.00), (_NO_END, 0.90)), _GATEWAY, PROVIDER, "2026-09"
    ),
    # Lambda on arm64. The tiers begin at 7.5 billion GB-seconds, which no stage reaches.
    "lambda_request": _price("Lambda requests", MILLION, "requests", 0.20, _LAMBDA, THIRD_PARTY),
    "lambda_gb_s": _price("Lambda duration, arm64", 1, "GB-s", 0.0000133334, _LAMBDA, THIRD_PARTY),
    # DynamoDB on demand, since November 2024.
    "dynamodb_write": _price("DynamoDB write units", MILLION, "units", 0.625, _DYNAMODB, THIRD_PARTY),
    "dynamodb_read": _price("DynamoDB read units", MILLION, "units", 0.125, _DYNAMODB, THIRD_PARTY),
    "dynamodb_storage": _price("DynamoDB storage", GB, "GB", 0.25, _DYNAMODB, MEMORY),
    "dynamodb_backup": _price("DynamoDB point-in-time recovery", GB, "GB", 0.20, _DYNAMODB, MEMORY),
    # Reads by Lambda's triggers, which is all that reads our streams, are free; others pay.
    "dynamodb_stream_read": _price(
        "DynamoDB stream reads, none by triggers", MILLION, "reads", 0.20, "aws.amazon.com/dynamodb/pricing", MEMORY
    ),
    "sqs_request": _price(
        "SQS requests, pieces of 64 KB", MILLION, "requests", 0.40, "aws.amazon.com/sqs/pricing", MEMORY
    ),
    # IoT Core.
    "iot_message": Price(
        "IoT Core messages, pieces of 5 KB",
        MILLION,
        "messages",
        _tiers((1e9, 1.00), (5e9, 0.80), (_NO_END, 0.70)),
        _IOT,
        MEMORY,
    ),
    "iot_rule": _price("IoT Core rules triggered", MILLION, "rules", 0.15, _IOT, MEMORY),
    "iot_action": _price("IoT Core actions of rules", MILLION, "actions", 0.15, _IOT, MEMORY),
    "iot_minute": _price("IoT Core connection minutes", MILLION, "minutes", 0.08, _IOT, MEMORY),
    # What a stage costs that nobody uses.
    "secret": _price("Secrets Manager secrets", 1, "secrets", 0.40, "aws.amazon.com/secrets-manager/pricing", MEMORY),
    "secret_request": _price(
        "Secrets Manager requests", 10_000, "requests", 0.05, "aws.amazon.com/secrets-manager/pricing", MEMORY
    ),
    "kms_key": _price("KMS keys", 1, "keys", 1.00, "aws.amazon.com/kms/pricing", MEMORY),
    "kms_request": _price("KMS requests", 10_000, "requests", 0.03, "aws.amazon.com/kms/pricing", MEMORY),
    "schedule": _price(
        "EventBridge Scheduler invocations",
        MILLION,
        "invocations",
        1.00,
        "aws.amazon.com/eventbridge/pricing",
        THIRD_PARTY,
    ),
    # CloudWatch.
    "log_gb": _price("CloudWatch logs taken in", GB, "GB", 0.50, _CLOUDWATCH, THIRD_PARTY),
    "log_storage": _price("CloudWatch logs kept", GB, "GB", 0.03, _CLOUDWATCH, MEMORY),
    "metric": _price("CloudWatch metrics of our own", 1, "metrics", 0.30, _CLOUDWATCH, THIRD_PARTY),
    "alarm": _price("CloudWatch alarms, each metric", 1, "metrics", 0.10, _CLOUDWATCH, THIRD_PARTY),
    "cloudwatch_dashboard": _price("CloudWatch dashboards", 1, "dashboards", 3.00, _CLOUDWATCH, THIRD_PARTY),
    # The edge. What CloudFront fetches from AWS is free.
    "cloudfront_gb": Price(
        "CloudFront data to browsers",
        GB,
        "GB",
        _tiers((10_240, 0.085), (51_200, 0.080), (153_600, 0.060), (_NO_END, 0.040)),
        _CLOUDFRONT,
        f"{PROVIDER}, as stored; its year is not known",
    ),
    "cloudfront_request": _price("CloudFront requests", 10_000, "requests", 0.0100, _CLOUDFRONT, THIRD_PARTY),
    "cloudfront_function": _price("CloudFront function runs", MILLION, "runs", 0.10, _CLOUDFRONT, THIRD_PARTY),
    "transfer_gb": _price("data to the internet", GB, "GB", 0.09, "aws.amazon.com/ec2/pricing/on-demand", THIRD_PARTY),
    # The relay as a service, on arm64.
    "fargate_vcpu_hour": _price("Fargate vCPU, arm64", 1, "vCPU-hours", 0.03238, _FARGATE, THIRD_PARTY),
    "fargate_gb_hour": _price("Fargate memory, arm64", 1, "GB-hours", 0.00356, _FARGATE, THIRD_PARTY),
    "ipv4_hour": _price("public IPv4 address", 1, "hours", 0.005, "aws.amazon.com/vpc/pricing", MEMORY),
    "ecr_gb": _price("ECR images kept", GB, "GB", 0.10, "aws.amazon.com/ecr/pricing", MEMORY),
    # Others, for comparison.
    "appsync_operation": _price(
        "AppSync Events operations, pieces of 5 KB",
        MILLION,
        "operations",
        1.00,
        _APPSYNC,
        "the provider's price list file, Ireland",
    ),
    "appsync_minute": _price("AppSync Events connection minutes", MILLION, "minutes", 0.08, _APPSYNC, MEMORY),
    # By consumption, as accounts have it that were there before monthly active users became the measure. It has
    # discounts for volume, down to a fifth of the first price, whose steps are not known here.
    "ably_package": _price("Ably Standard package", 1, "months", 29.00, "ably.com/docs/platform/pricing", PROVIDER),
    "ably_message": _price("Ably messages", MILLION, "messages", 2.50, _ABLY, THIRD_PARTY),
    "ably_connection_minute": _price("Ably connection minutes", MILLION, "minutes", 1.00, _ABLY, THIRD_PARTY),
    "ably_channel_minute": _price("Ably channel minutes", MILLION, "minutes", 1.00, _ABLY, THIRD_PARTY),
}


def changed(prices: Prices, given: Mapping[str, Any], where: str) -> Prices:
    """The prices with others in place of some. `given`: name -> dollars for what one unit of the name's price is.

    A price that is given holds for any quantity: its tiers go. Raises `PriceError`.
    """
    made = dict(prices)
    for name, dollars in given.items():
        if name not in prices:
            raise PriceError(f"{where}: no price is called {name!r}; allowed: {', '.join(sorted(prices))}")
        number = isinstance(dollars, int | float) and not isinstance(dollars, bool)
        if not number or not 0 <= dollars < 1e9:
            raise PriceError(f"{where}: {name}={str(dollars)[:40]!r}; allowed: dollars, a number from 0 to a billion")
        made[name] = prices[name]._replace(
            tiers=(Tier(_NO_END, float(dollars)),), url="", checked=f"{GIVEN} by {where}"
        )
    return made


def read_prices(path: Path) -> Mapping[str, Any]:
    """The prices of a JSON file: an object, name -> dollars. Raises `PriceError`."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise PriceError(f"{path.name}: cannot be read as JSON: {error}") from error
    if not isinstance(found, dict):
        raise PriceError(f"{path.name}: allowed: an object, such as {{'sqs_request': 0.5}}")
    return found


def pair(text: str) -> tuple[str, float]:
    """`sqs_request=0.5` as a name and dollars. Raises `PriceError`."""
    name, _, dollars = text.partition("=")
    try:
        return name, float(dollars)
    except ValueError as error:
        raise PriceError(f"--price {text!r}: allowed: a name and dollars, such as sqs_request=0.5") from error
