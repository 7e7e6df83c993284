"""The pages of the console and of viewers: which file an address gets, and with which headers.

The cloud's edge and the local one both follow this module, so that a page that works on a laptop works in the cloud.
"""

from __future__ import annotations

from collections.abc import Sequence

#: Where the built pages are, below the checkout.
DIST = "web/dist"
#: Pages for watching: of a public dashboard, of a share link, of a member.
VIEWER_PATHS = ("/p/*", "/s/*", "/d/*")
#: Files whose names hold a hash of what is in them.
HASHED_PATH = "/assets/*"

HASHED_CACHE = "public, max-age=31536000, immutable"
#: A page names the files of one build. It is asked for each time, so that a new build is seen at once.
PAGE_CACHE = "no-cache"


def file_of(path: str) -> str:
    """The file of an address, such as `/viewer.html` for `/p/abc`. What has a dot in its last part is a file itself."""
    if path.startswith(tuple(pattern.removesuffix("*") for pattern in VIEWER_PATHS)):
        return "/viewer.html"
    return path if "." in path.rsplit("/", 1)[-1] else "/index.html"


def cache_control(file: str) -> str:
    """How long a browser may keep a file without asking."""
    return HASHED_CACHE if file.startswith(HASHED_PATH.removesuffix("*")) else PAGE_CACHE


def content_security_policy(*, viewer: bool, ancestors: Sequence[str] = ()) -> str:
    """The policy of a page. Viewer pages may be framed by `ancestors`; the console by nobody.

    `'self'` of `connect-src` holds for the WebSocket of the same host too (CSP level 3).
    """
    framed_by = " ".join(ancestors) if viewer and ancestors else "'none'"
    return "; ".join(
        [
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "img-src 'self'",
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            f"frame-ancestors {framed_by}",
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        ]
    )


def headers(path: str, ancestors: Sequence[str] = ()) -> dict[str, str]:
    """The headers of the answer to an address, but for its type and length."""
    file = file_of(path)
    return {
        "Content-Security-Policy": content_security_policy(viewer=file == "/viewer.html", ancestors=ancestors),
        "Cache-Control": cache_control(file),
        **FIXED_HEADERS,
    }


#: The same for every page and file.
FIXED_HEADERS = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Robots-Tag": "noindex, nofollow",
}
