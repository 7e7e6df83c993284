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
from benchmarks.platform import platform
from fixtures.local_stack import show
from fixtures.local_stack.config import Config
from tests.doubles.platform import MemoryObserver
from tidegate.adapters.aws.http import tls_context
from tidegate.adapters.aws.management_api import ManagementApi
from tidegate.adapters.aws.sigv4 import Credentials
from tidegate.ports.delivery import Delivery, OutboundMessage

POSTS, FEWER = 10_000, 2_000
ROUNDS = 3
BODY = b"x" * 200
THREADS = 32
#: What the SDK and we sign with: as long as a function's own credentials.
_KEYS = ("AKIDEXAMPLE", "secret", "t" * 800)


@dataclass(frozen=True, slots=True)
class Figures:
    cpu_us: float
    per_second: float


def measured(work: Callable[[int], None], posts: int) -> Figures:
    """Medians over the rounds, once the sockets are open: handshakes are not what a post costs."""
    cpu, rate = [], []
    work(posts // 4)
    for _ in range(ROUNDS):
        before, started = time.process_time(), time.perf_counter()
        work(posts)
        cpu.append((time.process_time() - before) / posts * 1e6)
        rate.append(posts / (time.perf_counter() - started))
    return Figures(statistics.median(cpu), statistics.median(rate))


def bulk(url: str) -> Callable[[int], None]:
    api = ManagementApi(f"{url}/live", region="us-east-1", credentials=Credentials(*_KEYS), observer=MemoryObserver())

    def work(posts: int) -> None:
        done = api.post_many(
            [OutboundMessage(f"c{number}=", BODY) for number in range(posts)], deadline=time.monotonic() + 300
        )
        assert all(one.delivery is Delivery.DELIVERED for one in done)

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


def run(config: Config) -> list[str]:
    """Our bulk sender against boto3 with 32 threads; returns the lines of the result."""
    queues = []
    for delay_ms, name in ((0, "a server that answers at once"), (10, "a server that takes 10 ms")):
        with platform(delay_ms) as url, show.step(name):
            queues += [_compared(name, url, None), ""]
    name = "TLS, a server that answers at once"
    with platform(certificates=config.state) as url, trusting(config.state / "ca.pem"), show.step(name):
        queues += [_compared(name, url, config.state / "ca.pem"), ""]
    if missing := ceiling.missing():
        return [*queues, f"against wrk: left out, not installed: {', '.join(missing)}"]
    with ceiling.nginx() as url, show.step("nginx, against wrk"):
        return [*queues, _against_wrk(url)]


def _against_wrk(url: str) -> str:
    """Taking turns, since other work on the machine moves both."""
    work, ours, theirs = bulk(url), [], []
    for _ in range(ROUNDS):
        theirs.append(ceiling.wrk(url, body=len(BODY), token=len(_KEYS[2])))
        ours.append(measured(work, 3 * POSTS))
    rate, other = statistics.median(one.per_second for one in ours), statistics.median(theirs)
    cpu = statistics.median(one.cpu_us for one in ours)
    rows = [
        ("nginx", "CPU us a post", "posts/s"),
        ("bulk sender", f"{cpu:.1f}", f"{rate:,.0f}"),
        (f"wrk, {ceiling.CONNECTIONS} connections", "", f"{other:,.0f}"),
        ("ratio", "", f"{rate / other:.2f}"),
    ]
    return show.table(rows)


def _compared(name: str, url: str, authority: Path | None) -> str:
    ours, theirs = measured(bulk(url), POSTS), measured(sdk(url, authority), FEWER)
    rows = [(name, "CPU us a post", "posts/s")]
    rows += [
        (label, f"{one.cpu_us:.1f}", f"{one.per_second:,.0f}")
        for label, one in (("bulk sender", ours), (f"boto3, {THREADS} threads", theirs))
    ]
    rows.append(("ratio", f"{theirs.cpu_us / ours.cpu_us:.1f}", f"{ours.per_second / theirs.per_second:.1f}"))
    return show.table(rows)
