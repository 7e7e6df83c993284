"""What posting to many viewers costs: our bulk sender against boto3 with 32 threads, on one stand-in for the platform.

CPU is this process's own; the stand-in's is not counted. Rates are bounded by the stand-in, one Python process.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import boto3
from botocore.config import Config as BotoConfig

from benchmarks.platform import platform
from fixtures.local_stack import show
from fixtures.local_stack.config import Config
from tidegate.adapters.aws.management_api import ManagementApi
from tidegate.adapters.aws.sigv4 import Credentials
from tidegate.adapters.memory.doubles import MemoryObserver
from tidegate.ports import Delivery, Post

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
    """Medians over the rounds."""
    cpu, rate = [], []
    for _ in range(ROUNDS):
        before, started = time.process_time(), time.perf_counter()
        work(posts)
        cpu.append((time.process_time() - before) / posts * 1e6)
        rate.append(posts / (time.perf_counter() - started))
    return Figures(statistics.median(cpu), statistics.median(rate))


def bulk(url: str) -> Callable[[int], None]:
    api = ManagementApi(f"{url}/live", region="us-east-1", credentials=Credentials(*_KEYS), observer=MemoryObserver())

    def work(posts: int) -> None:
        done = api.post_many([Post(f"c{number}=", BODY) for number in range(posts)], deadline=time.monotonic() + 300)
        assert all(one.delivery is Delivery.DELIVERED for one in done)

    return work


def sdk(url: str) -> Callable[[int], None]:
    key, secret, token = _KEYS
    client = boto3.client(
        "apigatewaymanagementapi",
        endpoint_url=f"{url}/live",
        region_name="us-east-1",
        aws_access_key_id=key,
        aws_secret_access_key=secret,
        aws_session_token=token,
        config=BotoConfig(max_pool_connections=THREADS),
    )

    def work(posts: int) -> None:
        with ThreadPoolExecutor(THREADS) as pool:
            for _ in pool.map(
                lambda number: client.post_to_connection(ConnectionId=f"c{number}=", Data=BODY), range(posts)
            ):
                pass

    return work


def run(_config: Config) -> list[str]:
    """Our bulk sender against boto3 with 32 threads; returns the lines of the result."""
    lines: list[str] = []
    for delay_ms, name in ((0, "a server that answers at once"), (10, "a server that takes 10 ms")):
        with platform(delay_ms) as url, show.step(name):
            ours, theirs = measured(bulk(url), POSTS), measured(sdk(url), FEWER)
        rows = [(name, "CPU us a post", "posts/s")]
        rows += [
            (label, f"{one.cpu_us:.1f}", f"{one.per_second:,.0f}")
            for label, one in (("bulk sender", ours), (f"boto3, {THREADS} threads", theirs))
        ]
        rows.append(("ratio", f"{theirs.cpu_us / ours.cpu_us:.1f}", f"{ours.per_second / theirs.per_second:.1f}"))
        lines += [show.table(rows), ""]
    return lines[:-1]
