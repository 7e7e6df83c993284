"""The pages: served by the local edge, uploaded to the bucket of a stage, built when something changed."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest
from aiohttp.test_utils import TestClient, TestServer

from infra import web_build
from infra.pages import FIXED_HEADERS, HASHED_CACHE, PAGE_CACHE, file_of
from local_stack.edge import make_app
from ops.pages import put_back, shown, upload
from tests.deployment import aws

FILES = {
    "index.html": "<!doctype html>console",
    "viewer.html": "<!doctype html>viewer",
    "icon.svg": "<svg/>",
    "assets/viewer-abc.js": "export {}",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "dist"
    for name, text in FILES.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (root / ".fingerprint").write_text("of the build")
    (tmp_path / "secret.txt").write_text("not a page")
    return root


def answers(folder: Path, *paths: str, ancestors: tuple[str, ...] = ()) -> list[tuple[int, str, dict[str, str]]]:
    """Status, text and headers of the edge for each address, as it is written."""

    async def ask() -> list[tuple[int, str, dict[str, str]]]:
        app = make_app("http://127.0.0.1:9", "ws://127.0.0.1:9", folder, ancestors)
        async with TestClient(TestServer(app)) as client:
            found = []
            for path in paths:
                answer = await client.get(path)
                found.append((answer.status, await answer.text(), dict(answer.headers)))
            return found

    return asyncio.run(ask())


def test_every_address_gets_its_page(folder: Path) -> None:
    console = ("/", "/people", "/index.html")
    viewer = ("/p/abc", "/s/a.b", "/d/x")
    found = answers(folder, *console, *viewer, "/assets/viewer-abc.js", "/icon.svg")
    assert [status for status, _, _ in found] == [200] * 8
    assert [text for _, text, _ in found] == [FILES["index.html"]] * 3 + [FILES["viewer.html"]] * 3 + [
        FILES["assets/viewer-abc.js"],
        FILES["icon.svg"],
    ]
    for _, _, headers in found:
        assert FIXED_HEADERS.items() <= headers.items()
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert [headers["Cache-Control"] for _, _, headers in found] == [PAGE_CACHE] * 6 + [HASHED_CACHE, PAGE_CACHE]


def test_a_page_that_is_there_already_is_not_sent_again_and_the_connection_stays_good(folder: Path) -> None:
    """A library that compresses an answer without a body leaves bytes on the connection: the next answer is lost."""

    async def ask() -> list[tuple[int, bytes]]:
        app = make_app("http://127.0.0.1:9", "ws://127.0.0.1:9", folder)
        async with TestServer(app) as server:
            reader, writer = await asyncio.open_connection(server.host, server.port)

            async def answer(path: str, known: str) -> tuple[int, str, bytes]:
                lines = (f"GET {path} HTTP/1.1", "Host: x", "Accept-Encoding: gzip", f"If-None-Match: {known}", "", "")
                writer.write("\r\n".join(lines).encode())
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                status = int(head.split()[1])
                length = re.search(r"(?i)content-length: (\d+)", head)
                if "chunked" in head:
                    body = await reader.readuntil(b"0\r\n\r\n")
                else:
                    body = await reader.readexactly(int(length[1]) if length and status != 304 else 0)
                tag = re.search(r'(?i)etag: ("[^"]+")', head)
                assert tag is not None
                return status, tag[1], body

            _, tag, _ = await answer("/", '"other"')
            asked = [("/", tag), ("/", '"other"'), ("/icon.svg", tag), ("/", f'W/"x", {tag}')]
            found = [await answer(path, known) for path, known in asked]
            writer.close()
            return [(status, body) for status, _, body in found]

    found = asyncio.run(ask())
    assert [status for status, _ in found] == [304, 200, 200, 304]
    assert found[1][1] and found[2][1]


def test_only_viewer_pages_are_framed_and_only_by_named_origins(folder: Path) -> None:
    origin = "https://intranet.example.com"
    console, viewer = answers(folder, "/", "/p/abc", ancestors=(origin,))
    assert "frame-ancestors 'none'" in console[2]["Content-Security-Policy"]
    assert f"frame-ancestors {origin};" in viewer[2]["Content-Security-Policy"]


def test_what_is_not_there_is_no_page(folder: Path) -> None:
    paths = ("/assets/gone.js", "/../secret.txt", "/%2e%2e/secret.txt", "/..%2fsecret.txt", "/internal/x", "/internal")
    for status, text, headers in answers(folder, *paths):
        assert status == 404 and "not a page" not in text and FILES["index.html"] not in text
        assert "immutable" not in headers.get("Cache-Control", "")


def test_pages_are_uploaded_after_their_files_and_once(moto_url: str, folder: Path) -> None:
    s3 = aws(moto_url, "s3")
    s3.create_bucket(Bucket="console")
    assert upload(s3, "console", folder) == ["assets/viewer-abc.js", "icon.svg", "index.html", "viewer.html"]
    assert upload(s3, "console", folder) == []
    page = s3.get_object(Bucket="console", Key="viewer.html")
    file = s3.get_object(Bucket="console", Key="assets/viewer-abc.js")
    assert (page["CacheControl"], page["ContentType"]) == (PAGE_CACHE, "text/html; charset=utf-8")
    assert (file["CacheControl"], file["ContentType"]) == (HASHED_CACHE, "text/javascript; charset=utf-8")
    # The next build: the files of the one before stay for pages that are open.
    (folder / "assets/viewer-abc.js").rename(folder / "assets/viewer-def.js")
    (folder / "viewer.html").write_text("another")
    assert upload(s3, "console", folder) == ["assets/viewer-def.js", "viewer.html"]
    kept = {item["Key"] for item in s3.list_objects_v2(Bucket="console")["Contents"]}
    assert {key for key in kept if not key.startswith("kept/")} == {*FILES, "assets/viewer-def.js"}


def test_a_release_gets_its_pages_back(moto_url: str, folder: Path) -> None:
    s3 = aws(moto_url, "s3")
    s3.create_bucket(Bucket="back")
    upload(s3, "back", folder)
    before = shown(s3, "back")
    assert before.keys() == {"index.html", "viewer.html", "icon.svg"}
    (folder / "viewer.html").write_text("another")
    upload(s3, "back", folder)
    assert {name for name, digest in shown(s3, "back").items() if before[name] != digest} == {"viewer.html"}
    put_back(s3, "back", "viewer.html", before["viewer.html"])
    page = s3.get_object(Bucket="back", Key="viewer.html")
    assert page["Body"].read().decode() == FILES["viewer.html"] and shown(s3, "back") == before
    assert (page["CacheControl"], page["ContentType"]) == (PAGE_CACHE, "text/html; charset=utf-8")


def test_no_address_leads_to_a_copy_that_is_kept() -> None:
    assert file_of("/kept/0cc175b9c0f1b6a831c399e269772661") == "/index.html"


def test_a_change_of_any_source_is_another_build(tmp_path: Path) -> None:
    for source in web_build.SOURCES:
        path = tmp_path / source
        path = path if path.suffix else path / "file.ts"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("one")
    seen = {web_build.fingerprint(tmp_path)}
    assert web_build.fingerprint(tmp_path) in seen
    for path in sorted(tmp_path.rglob("*.*")):
        path.write_text("two")
        seen.add(web_build.fingerprint(tmp_path))
        path.rename(path.with_stem("moved") if path.name == "file.ts" else path)
        seen.add(web_build.fingerprint(tmp_path))
    assert len(seen) == 1 + len(web_build.SOURCES) + 2
