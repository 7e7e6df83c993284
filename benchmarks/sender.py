"""What posting to many viewers costs: our bulk sender against boto3 with 32 threads, on one stand-in for the platform,
and against wrk on nginx, where the machine has both.

CPU is this process's own; the stand-in's is not counted. Rates are bounded by the stand-in, one Python process.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import boto3
from botocore.config import Config as BotoConfig

from benchmarks import ceiling
from benchmarks.figures import Cell, Figure, Table
from benchmarks.platform import platform
from benchmarks.progress import step
from local_stack.config import Config
from tidegate.adapters.aws.http import tls_context
from tidegate.adapters.aws.management_api import ManagementApi
from tidegate.adapters.aws.sigv4 import Credentials
from tidegate.adapters.json_observer import JsonObserver
from tidegate.ports.delivery import Delivery, OutboundMessage

BODY = b"x" * 200
THREADS = 32
#: What the SDK and we sign with: as long as a function's own credentials.
_KEYS = ("AKIDEXAMPLE", "secret", "t" * 800)


@dataclass(frozen=True, slots=True)
class Size:
    """How much is sent.

    Attributes:
        posts: of a round of ours.
        sdk_posts: of a round of boto3, which takes longer.
        rounds: whose medians are shown.
        wrk_seconds: for which wrk posts in each round, whole seconds.
    """

    posts: int
    sdk_posts: int
    rounds: int
    wrk_seconds: int


FULL = Size(posts=10_000, sdk_posts=2_000, rounds=3, wrk_seconds=3)
SMALL = Size(posts=500, sdk_posts=64, rounds=1, wrk_seconds=1)


@dataclass(frozen=True, slots=True)
class Cost:
    """CPU of this process for each post, microseconds, and posts a second of wall time."""

    cpu_us: float
    per_second: float


def measured(work: Callable[[int], None], posts: int, rounds: int) -> Cost:
    """Medians over the rounds, once the sockets are open: handshakes are not what a post costs."""
    cpu, rate = [], []
    work(posts // 4)
    for _ in range(rounds):
        before, started = time.process_time(), time.perf_counter()
        work(posts)
        cpu.append((time.process_time() - before) / posts * 1e6)
        rate.append(posts / (time.perf_counter() - started))
    return Cost(statistics.median(cpu), statistics.median(rate))


def bulk(url: str) -> Callable[[int], None]:
    quiet = JsonObserver("bench", write=lambda _line: None)
    api = ManagementApi(f"{url}/live", region="us-east-1", credentials=Credentials(*_KEYS), observer=quiet)

    def work(posts: int) -> None:
        done = api.post_many(
            [OutboundMessage(f"c{number}=", BODY) for number in range(posts)], deadline=time.monotonic() + 300
        )
        assert all(sent.delivery is Delivery.DELIVERED for sent in done)

    return work


def sdk(url: str, authority: Path | None) -> Callable[[int], None]:
    key, secret, token = _KEYS
    client = boto3.client(
        "apigatewaymanagementapi",
        endpoint_url=f"{url}/live",
        region_name="us-east-1",
        aws_access_key_id=key,
        aws_secret_access_key=secret,
        aws_session_token=token,
        config=BotoConfig(max_pool_connections=THREADS),
        verify=None if authority is None else str(authority),
    )

    def work(posts: int) -> None:
        with ThreadPoolExecutor(THREADS) as pool:
            for _ in pool.map(
                lambda number: client.post_to_connection(ConnectionId=f"c{number}=", Data=BODY), range(posts)
            ):
                pass

    return work


@contextmanager
def trusting(authority: Path) -> Iterator[None]:
    """Have the sender trust a certificate authority, as `SSL_CERT_FILE` does."""
    kept = os.environ.get("SSL_CERT_FILE")
    os.environ["SSL_CERT_FILE"] = str(authority)
    tls_context.cache_clear()
    try:
        yield
    finally:
        del os.environ["SSL_CERT_FILE"]
        os.environ |= {} if kept is None else {"SSL_CERT_FILE": kept}
        tls_context.cache_clear()


def run(config: Config, size: Size) -> list[Table]:
    """Our bulk sender against boto3 with 32 threads, on one stand-in, and against wrk on nginx."""
    tables = []
    for delay_ms, name in ((0, "a server that answers at once"), (10, "a server that takes 10 ms")):
        with platform(delay_ms) as url, step(name):
            tables.append(_compared(name, url, None, size))
    name = "TLS, a server that answers at once"
    config.state.mkdir(parents=True, exist_ok=True)
    with platform(certificates=config.state) as url, trusting(config.state / "ca.pem"), step(name):
        tables.append(_compared(name, url, config.state / "ca.pem", size))
    if missing := ceiling.missing():
        return [*tables, Table((f"against wrk: left out, not installed: {', '.join(missing)}",), ())]
    with ceiling.nginx() as url, step("nginx, against wrk"):
        return [*tables, _against_wrk(url, size)]


def _against_wrk(url: str, size: Size) -> Table:
    """Taking turns, since other work on the machine moves both."""
    work, ours, theirs = bulk(url), [], []
    for _ in range(size.rounds):
        theirs.append(ceiling.wrk(url, body=len(BODY), token=len(_KEYS[2]), seconds=size.wrk_seconds))
        ours.append(measured(work, 3 * size.posts, size.rounds))
    rate, other = statistics.median(cost.per_second for cost in ours), statistics.median(theirs)
    cpu = statistics.median(cost.cpu_us for cost in ours)
    return Table(
        ("nginx", "CPU us a post", "posts/s"),
        (
            ("bulk sender", Figure(cpu, ".1f"), Figure(rate, ",.0f")),
            (f"wrk, {ceiling.CONNECTIONS} connections", "", Figure(other, ",.0f")),
            ("ratio", "", Figure(rate / other, ".2f")),
        ),
    )


def _compared(name: str, url: str, authority: Path | None, size: Size) -> Table:
    ours = measured(bulk(url), size.posts, size.rounds)
    theirs = measured(sdk(url, authority), size.sdk_posts, size.rounds)
    rows: list[tuple[Cell, ...]] = [
        (label, Figure(cost.cpu_us, ".1f"), Figure(cost.per_second, ",.0f"))
        for label, cost in (("bulk sender", ours), (f"boto3, {THREADS} threads", theirs))
    ]
    ratios = (Figure(theirs.cpu_us / ours.cpu_us, ".1f"), Figure(ours.per_second / theirs.per_second, ".1f"))
    return Table((name, "CPU us a post", "posts/s"), [*rows, ("ratio", *ratios)])
