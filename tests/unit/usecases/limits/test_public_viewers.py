"""Honest public viewers keep every token alive, up to the default caps, also while ten addresses mean harm."""

from __future__ import annotations

from contextlib import suppress

import pytest

from tests.containers.gateway import DASHBOARD, GatewayContainer
from tests.containers.public_viewers import PublicViewers, Viewer, default_settings
from tidegate.domain.access import Visibility
from tidegate.domain.budgets import (
    HOSTILE_ADDRESSES,
    address_part,
    shared_by_viewers,
    tokens_of_address,
    tokens_of_viewer,
)
from tidegate.errors import LimitReached, NotFound, TidegateError
from tidegate.usecases.control_plane.mint import MintRequest
from tidegate.usecases.gateway.subscribe import SubscribePolicy

QUARTER_HOUR_S = 900
SETTINGS = default_settings()
PER_ADDRESS = SETTINGS.max_client_connections_per_ip
#: As many connections as a dashboard may have, less what hostile addresses can hold.
MOST_VIEWERS = SETTINGS.max_connections_per_dashboard - HOSTILE_ADDRESSES * PER_ADDRESS


def honest(count: int, per_address: int = PER_ADDRESS) -> list[Viewer]:
    return [Viewer(f"honest-{number}", f"192.0.2.{number // per_address}") for number in range(count)]


class Attacker:
    """One address that does all it can in this minute, at the cost of as few calls as show it."""

    def __init__(self, scene: PublicViewers, number: int) -> None:
        self._scene = scene
        self._address = f"203.0.113.{number}"
        self._opened = 0
        self._token: str | None = None

    def __call__(self) -> None:
        scene, source = self._scene, self._scene.datasources[0]
        for _ in range(address_part(SETTINGS.mint_rate_limit_share_token_per_min) + 5):
            with suppress(LimitReached):
                self._token = scene.mint(scene.request(self._address, source)).token
            with suppress(TidegateError):
                scene.mint(scene.request(self._address, source, self._token, link="a-guess"))
        for _ in range(SETTINGS.connect_rate_limit_ip_per_min + 5):
            self._opened += 1
            viewer = Viewer(f"{self._address}-{self._opened}", self._address, {source: self._token or ""})
            with suppress(LimitReached):
                scene.connect(viewer)
                scene.subscribe(viewer, source)


@pytest.mark.parametrize(
    ("viewers", "datasources", "attackers"),
    [
        (honest(MOST_VIEWERS), 5, HOSTILE_ADDRESSES),
        (honest(MOST_VIEWERS, per_address=1), 1, HOSTILE_ADDRESSES),
        (honest(100), 50, HOSTILE_ADDRESSES),
        (honest(20), 50, 0),
        (honest(PER_ADDRESS), 50, HOSTILE_ADDRESSES),
    ],
    ids=["1000 x 5", "1000 addresses", "100 x 50", "20 x 50 behind one address", "a full address x 50"],
)
def test_every_token_lives_for_a_quarter_of_an_hour(viewers: list[Viewer], datasources: int, attackers: int) -> None:
    """All come in the same minute, after the attackers, and refresh in the same minute."""
    scene = PublicViewers(datasources)
    attacks = [Attacker(scene, number) for number in range(attackers)]
    for attack in attacks:
        attack()
    for viewer in viewers:
        scene.connect(viewer)
        scene.watch(viewer)
    for _ in scene.minutes_of_refresh(QUARTER_HOUR_S):
        assert scene.alive(viewers) == len(viewers) * datasources
        for attack in attacks:
            attack()
        for viewer in viewers:
            scene.watch(viewer)
    assert scene.alive(viewers) == len(viewers) * datasources


def test_the_defaults_follow_from_one_another() -> None:
    """What a setting allows, the others let through."""
    settings = SETTINGS
    per_connection, ttl_s = settings.max_subscriptions_per_connection, settings.datasource_session_ttl_seconds
    assert MOST_VIEWERS == 1000
    for shared in (
        settings.mint_rate_limit_share_token_per_min,
        settings.public_subscribe_rate_limit_share_token_per_min,
    ):
        assert shared == shared_by_viewers(settings.max_connections_per_dashboard)
        assert shared - HOSTILE_ADDRESSES * address_part(shared) >= settings.max_connections_per_dashboard
    assert settings.mint_rate_limit_public_ip_per_min == address_part(settings.mint_rate_limit_share_token_per_min)
    assert settings.mint_rate_limit_public_ip_per_min >= 2 * PER_ADDRESS, "each connection may come back once"
    assert settings.connect_rate_limit_ip_per_min >= 2 * PER_ADDRESS
    full_pages = tokens_of_address(PER_ADDRESS, per_connection, ttl_s)
    assert settings.public_subscribe_rate_limit_ip_per_min == full_pages
    assert settings.mint_rate_limit_user_per_min == 2 * tokens_of_viewer(per_connection, ttl_s)


@pytest.mark.parametrize(("ttl_s", "tokens"), [(60, 150), (120, 100), (300, 100), (3600, 100)])
def test_what_a_page_needs(ttl_s: int, tokens: int) -> None:
    """It opens, and refreshes at half of the life of its tokens, in the same minute."""
    assert tokens_of_viewer(50, ttl_s) == tokens


def minted(scene: PublicViewers, requests: list[MintRequest]) -> tuple[int, list[str]]:
    """How many of these are minted, and what the others were told."""
    done, told = 0, []
    for request in requests:
        try:
            scene.mint(request)
            done += 1
        except TidegateError as error:
            told.append(type(error).__name__)
    return done, told


@pytest.mark.parametrize("visibility", [Visibility.PUBLIC, Visibility.LINK])
def test_a_token_with_guesses_beside_it_spends_the_budget_of_the_address(visibility: Visibility) -> None:
    scene = PublicViewers(1)
    scene.gateway.change(visibility=visibility)
    first = scene.mint(scene.request("192.0.2.1", "source-0")).token
    requests = [scene.request("192.0.2.1", "source-0", first, link=f"guess-{number}") for number in range(150)]
    done, told = minted(scene, requests)
    assert done == (tokens_of_viewer(50, 300) if visibility is Visibility.PUBLIC else 0)
    assert told[-1] == "LimitReached"


def test_one_token_is_not_replayed_into_many() -> None:
    """Neither the same token again and again, nor each time the newest."""
    scene = PublicViewers(1)
    current = scene.mint(scene.request("192.0.2.1", "source-0")).token
    requests = [scene.request("192.0.2.1", "source-0", current) for _ in range(75)]
    done, _ = minted(scene, requests)
    for number in range(75):
        with suppress(LimitReached):
            current = scene.mint(scene.request(f"198.51.100.{number}", "source-0", current)).token
            done += 1
    assert done == tokens_of_viewer(50, 300)


def test_many_viewers_of_one_address_mint_as_much_as_its_connections_need() -> None:
    scene = PublicViewers(1)
    tokens = [scene.mint(scene.request("192.0.2.1", "source-0")).token for _ in range(60)]
    scene.clock.advance(60)
    done, _ = minted(scene, [scene.request("192.0.2.1", "source-0", token) for token in tokens for _ in range(60)])
    assert done == tokens_of_address(PER_ADDRESS, 50, 300)


def test_guesses_and_the_refused_spend_nothing_that_is_shared() -> None:
    scene = PublicViewers(1)
    for number in range(200):
        address = f"203.0.113.{number % 4}"
        with pytest.raises(TidegateError):
            scene.mint(scene.request(address, "source-0", link=f"guess-{number}"))
        with pytest.raises(TidegateError):
            scene.mint(MintRequest(None, address, f"dashboard-{number}", "source-0"))
        with pytest.raises(TidegateError):
            scene.mint(scene.request(address, f"guess-{number}"))
    assert scopes(scene) == {"datasource-mint-public-ip"}
    assert len(scene.gateway.rate_store._counts) == 4, "one bucket for each address"


def scopes(scene: PublicViewers) -> set[str]:
    """What was counted in the minute that the clock shows."""
    minute = int(scene.clock.now() // 60)
    return {key.split("#")[1] for key, _, window in scene.gateway.rate_store._counts if window == minute}


def test_a_refresh_spends_nothing_that_is_shared() -> None:
    scene, viewer = PublicViewers(5), Viewer("v", "192.0.2.1")
    scene.connect(viewer)
    scene.watch(viewer)
    assert "datasource-mint-public-share" in scopes(scene)
    shared = [count for key, (count, _) in scene.gateway.rate_store._counts.items() if "-share#" in key[0]]
    assert shared == [1], "the viewer, and not each datasource"
    scene.clock.advance(240)
    scene.watch(viewer)
    assert not [scope for scope in scopes(scene) if scope.endswith("-share")]
    assert not [scope for scope in scopes(scene) if scope.startswith("realtime-public-subscribe")]


def test_who_is_not_the_viewer_of_this_link_is_new() -> None:
    """A token of another dashboard, of a user, of a replaced link, an expired one, and none at all."""
    scene = PublicViewers(1)
    gateway = scene.gateway
    gateway.add_dashboard("other")
    known = scene.mint(scene.request("192.0.2.1", "source-0")).token
    viewer_id = gateway.tokens.claims[known].viewer_id
    followed = scene.mint(scene.request("192.0.2.1", "source-0", known)).token
    assert viewer_id and gateway.tokens.claims[followed].viewer_id == viewer_id
    expired = gateway.token("source-0", ttl=1, viewer_id=viewer_id)
    scene.clock.advance(2)
    others = [
        gateway.token(dashboard="other", viewer_id=viewer_id),
        gateway.token("source-0", user="member", viewer_id=viewer_id),
        gateway.token("source-0", share_version=0, viewer_id=viewer_id),
        gateway.token("source-0", viewer_id=None),
        expired,
        "no token",
        None,
    ]
    for number, token in enumerate(others):
        minted = scene.mint(scene.request(f"198.51.100.{number}", "source-0", token)).token
        assert gateway.tokens.claims[minted].viewer_id not in (viewer_id, None)
    shared = [count for key, (count, _) in gateway.rate_store._counts.items() if "mint-public-share#" in key[0]]
    assert shared == [1 + len(others)]


def test_a_missing_datasource_is_told_to_who_may_see_the_dashboard() -> None:
    scene = PublicViewers(1)
    with pytest.raises(NotFound, match="Datasource"):
        scene.mint(scene.request("192.0.2.1", "nothing"))


def test_tokens_that_name_no_viewer_spend_a_part_of_what_is_shared() -> None:
    """As a remote API mints them. A connection counts once for a dashboard, and an address cannot lock others out."""
    limit = 40
    gateway = GatewayContainer(subscribe_policy=SubscribePolicy(50, 1000, 1000, limit))
    gateway.add_datasource("second", "a/b")
    gateway.subscribed("c", viewer_id=None)
    gateway.subscribe("c", DASHBOARD, "second", gateway.token("second", viewer_id=None))
    taken = 1
    for address in range(HOSTILE_ADDRESSES):
        for number in range(5):
            name = f"hostile-{address}-{number}"
            gateway.open(name, ip=f"hostile-{address}")
            with suppress(LimitReached):
                gateway.subscribe(name, DASHBOARD, "temp", gateway.token(viewer_id=None))
                taken += 1
    assert taken == 1 + HOSTILE_ADDRESSES * address_part(limit)
    gateway.open("late", ip="late")
    gateway.subscribe("late", DASHBOARD, "temp", gateway.token(viewer_id=None))
