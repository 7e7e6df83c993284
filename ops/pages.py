"""Uploading the built pages to the bucket of a stage.

Files with a hash in their names come first, and stay: a page that is open still loads the parts of its own build. Then
come the pages, which name the new files. So whenever it stops, every page finds its files.

A copy of each page is kept under the MD5 of its content, so that a release can be given its pages back. No address
leads to the copies: what has no dot in its last part is a page.
"""

from __future__ import annotations

import hashlib
import mimetypes
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from infra.pages import HASHED_PATH, cache_control

_KEPT = "kept/"


def upload(s3: Any, bucket: str, folder: Path) -> list[str]:
    """Upload what is not there yet, or is another. Returns the names of what was uploaded.

    Args:
        s3: boto3's client. An error of it is passed on.
        folder: the built pages.
    """
    there = dict(_etags(s3, bucket))
    uploaded = []
    for path in sorted(_files(folder), key=lambda path: (not _hashed(path, folder), str(path))):
        name, body = _name(path, folder), path.read_bytes()
        digest = _digest(body)
        keys = [name] if _hashed(path, folder) else [f"{_KEPT}{digest}", name]
        missing = [key for key in keys if there.get(key) != digest]
        if not missing:
            continue
        kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        text = kind.startswith("text/") or kind in ("application/javascript", "image/svg+xml")
        for key in missing:
            s3.put_object(
                Bucket=bucket,
                Key=key,
                Body=body,
                ContentType=f"{kind}; charset=utf-8" if text else kind,
                CacheControl=cache_control(f"/{name}"),
            )
        if name in missing:
            uploaded.append(name)
    return uploaded


def shown(s3: Any, bucket: str) -> dict[str, str]:
    """The pages that viewers get now: name -> MD5. What has a hash in its name is in no release: it never changes."""
    hashed = HASHED_PATH.strip("/*") + "/"
    return {name: digest for name, digest in _etags(s3, bucket) if not name.startswith((_KEPT, hashed))}


def put_back(s3: Any, bucket: str, name: str, digest: str) -> None:
    """Show the page as it was. An error of boto3 is passed on, such as that no copy of it is there."""
    s3.copy_object(Bucket=bucket, Key=name, CopySource={"Bucket": bucket, "Key": f"{_KEPT}{digest}"})


def _digest(body: bytes) -> str:
    return hashlib.md5(body, usedforsecurity=False).hexdigest()


def _files(folder: Path) -> Iterator[Path]:
    for path in folder.rglob("*"):
        if path.is_file() and not path.name.startswith("."):
            yield path


def _name(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix()


def _hashed(path: Path, folder: Path) -> bool:
    return f"/{_name(path, folder)}".startswith(HASHED_PATH.removesuffix("*"))


def _etags(s3: Any, bucket: str) -> Iterator[tuple[str, str]]:
    """Names and MD5 of what is there. The ETag of an object that was put in one piece is its MD5."""
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket):
        for item in page.get("Contents", []):
            yield item["Key"], item["ETag"].strip('"')
