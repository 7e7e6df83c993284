"""The policy reads a URL with one parser, aiohttp connects with another: they must agree on every URL that passes."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from yarl import URL

from tidegate.domain.egress import EgressPolicy, check_url
from tidegate.errors import PolicyBlocked

OPEN = EgressPolicy((), (80, 443), production=False)

#: What URL parsers have been known to disagree about.
PIECES = st.sampled_from(
    [
        *"/?#@:;&=.[]%\\|^`{}<>'\"-_~!$()*+, \t",
        *("good.example", "evil.example", "93.184.216.34", "[2606:4700::1111]", "xn--", "80", "443", ":80", "http://"),
        *("//", "%2f", "%40", "%00", "\u3002", "\uff0e", "\uff0f", "\u200d", "\xad", "\u2044", "\u2100"),
    ]
)


HOSTS = st.sampled_from(["good.example", "Good.Example.", "93.184.216.34", "[2606:4700::1111]", "xn--80ak.example"])
#: Mostly a host with something around it, so that a good part of them passes.
RESTS = st.builds(
    "{}{}{}{}".format,
    st.one_of(st.just(""), st.just(""), st.just(""), PIECES),
    HOSTS,
    st.sampled_from(["/", "?", "#", ":80/", ":443", ":", "", ""]),
    st.lists(PIECES, max_size=5).map("".join),
)


@settings(max_examples=1000)
@given(RESTS)
def test_what_passes_leads_where_it_was_said_to(rest: str) -> None:
    url = f"http://{rest}"
    try:
        checked = check_url(url, "sse", OPEN)
    except PolicyBlocked:
        return
    connected = URL(url)
    assert connected.raw_host is not None
    assert (connected.raw_host.removesuffix("."), connected.port) == (checked.host, checked.port)
