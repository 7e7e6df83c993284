from __future__ import annotations

import pytest

from tidegate.domain.secret_strength import weakness


@pytest.mark.parametrize(
    "strong",
    ["C_7a1N#2vK!9pR@4zX$6mQ%8wL&3tY*0", "ThisIsALongEnoughGatewaySecretForConfigTests123!"],
)
def test_strong(strong: str) -> None:
    assert weakness(strong) is None


@pytest.mark.parametrize(
    "weak",
    [
        "",
        "ChangeMe",
        "short-but-random-8f3k2",
        "replace-with-a-long-random-secret-please",
        "an-example-of-a-long-random-secret-12345",
        "abcabcabcabcabcabcabcabcabcabcabcabcabc",
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaabcdef",
    ],
)
def test_weak(weak: str) -> None:
    reason = weakness(weak)
    assert reason and (not weak or weak not in reason)
