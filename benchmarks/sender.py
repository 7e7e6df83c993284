"""What posting to many viewers costs: our bulk sender against boto3 with 32 threads, on one stand-in for the platform,
and against wrk on nginx, where the machine has both.

CPU is the client's own; the server's is not counted. Rates are bounded by the server, one process. The two that are
compared take turns, and the ratio is the median of those of each turn: other work on the machine moves both.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import boto3
from botocore.config import Config as BotoConfig

from benchmarks import ceiling
from benchmarks.ceiling import Cost
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
        rounds: turns of each, whose medians are shown.
        wrk_seconds: for which wrk posts in each turn, whole seconds.
    """

    posts: int
    sdk_posts: int
    rounds: int
    wrk_seconds: int


FULL = Size(posts=10_000, sdk_posts=1_000, rounds=9, wrk_seconds=2)
SMALL = Size(posts=500, sdk_posts=64, rounds=1, wrk_seconds=1)


@dataclass(frozen=True, slots=True)
class Compared:
    """What a post costs two clients.

    Attributes:
        ours, theirs: medians of the turns.
        cpu_ratio: how many times our CPU theirs is, the median of the turns.
        rate_ratio: how many times their rate ours is, the same.
    """

    ours: Cost
    theirs: Cost
    cpu_ratio: float
    rate_ratio: float


def taking_turns(ours: Callable[[], Cost], theirs: Callable[[], Cost], rounds: int) -> Compared:
    """Compare two clients. The first turn of each is not counted: it opens sockets, which is not what a post costs."""
    turns = [(theirs(), ours()) for _ in range(rounds + 1)][1:]
    return Compared(
        _median([mine for _, mine in turns]),
        _median([other for other, _ in turns]),
        statistics.median(other.cpu_us / mine.cpu_us for other, mine in turns),
        statistics.median(mine.per_second / other.per_second for other, mine in turns),
    )


def _median(costs: Sequence[Cost]) -> Cost:
    return Cost(statistics.median(cost.cpu_us for cost in costs), statistics.median(cost.per_second for cost in costs))


def cost(work: Callable[[int], None], posts: int) -> Cost:
    """What posts of this process cost."""
    before, started = time.process_time(), time.perf_counter()
    work(posts)
    return Cost((time.process_time() - before) / posts * 1e6, posts / (time.perf_counter() - started))


def bulk(url: str) -> Callable[[int], None]:
    quiet = JsonObserver("bench", "qa", write=lambda _line: None)
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
        return [*tables, Table((f"against wrk: left out. {missing}",), ())]
    with ceiling.nginx() as url, step("nginx, against wrk"):
        return [*tables, _against_wrk(url, size)]


def _compared(name: str, url: str, authority: Path | None, size: Size) -> Table:
    ours, theirs = bulk(url), sdk(url, authority)
    found = taking_turns(lambda: cost(ours, size.posts), lambda: cost(theirs, size.sdk_posts), size.rounds)
    return _table(name, f"boto3, {THREADS} threads", found)


def _against_wrk(url: str, size: Size) -> Table:
    ours = bulk(url)

    def theirs() -> Cost:
        return ceiling.wrk(url, body=len(BODY), token=len(_KEYS[2]), seconds=size.wrk_seconds)

    found = taking_turns(lambda: cost(ours, 3 * size.posts), theirs, size.rounds)
    return _table("nginx", f"wrk, {ceiling.CONNECTIONS} connections", found)


def _table(name: str, other: str, found: Compared) -> Table:
    rows: list[tuple[Cell, ...]] = [
        (label, Figure(cost.cpu_us, ".1f"), Figure(cost.per_second, ",.0f"))
        for label, cost in (("bulk sender", found.ours), (other, found.theirs))
    ]
    ratios = (Figure(found.cpu_ratio, ".2f"), Figure(found.rate_ratio, ".2f"))
    note = "a ratio is the median of those of each turn"
    return Table((name, "CPU us a post", "posts/s"), [*rows, ("ratio", *ratios)], (note,))
