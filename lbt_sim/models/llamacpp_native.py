"""The one place that touches `xllamacpp`: loading a model quietly, asking it, tokenising, freeing it.

llama.cpp writes its messages to standard error from native code. It is told to write none; when loading fails, a second
process repeats it, with messages, to learn why.
"""

from __future__ import annotations

import http.client
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lbt_sim.errors import ModelUnavailable

__all__ = ["Native", "Setup", "Stopped"]

SILENT, ERRORS = 0, 1
"""llama.cpp's verbosity."""
_TIMEOUT = 60
"""Seconds that the embedded server has for a question about tokens. It answers within milliseconds of a free core."""
SHORT = 8
"""Tokens of a reply that is not worth interrupting."""


class Stopped(Exception):
    """A reply was given up because nobody waits for it any more."""


@dataclass(frozen=True, slots=True)
class Setup:
    """How a GGUF file is loaded."""

    path: Path
    context: int
    parallel: int
    threads: int
    gpu_layers: int
    cache_mib: int


class Native:
    """A loaded model. Its methods block; `chat` may be called from several threads."""

    def __init__(self, server: Any, key: str, folder: Path | None) -> None:
        self._server = server
        self._key = key
        self._address: str = server.listening_address
        self._first: dict[tuple[str, ...], Mapping[str, str] | None] = {}
        self._clean_up = weakref.finalize(self, _remove, folder)

    @classmethod
    def load(cls, setup: Setup) -> Native:
        """Load the model.

        Raises:
            ModelUnavailable: xllamacpp is missing or llama.cpp refuses the file.
        """
        # llama.cpp's threads meet at a barrier several hundred times a token, and wait there by spinning. Where other
        # work wants the same cores that costs a factor of 6 (measured on two); spinning briefly costs next to nothing.
        # Must be set before the library is loaded.
        if "OMP_WAIT_POLICY" not in os.environ:
            os.environ.setdefault("GOMP_SPINCOUNT", "1000")
        try:
            import xllamacpp
        except ImportError as error:
            raise ModelUnavailable(
                f"the engine 'llamacpp' needs the package xllamacpp: {error}",
                remedy="Install it (`uv pip install xllamacpp`), or use another engine.",
            ) from error
        key = secrets.token_urlsafe(24)
        # The embedded HTTP server cannot be left out: give it a socket that only this user can reach.
        folder = Path(tempfile.mkdtemp(prefix="lbt-sim-")) if hasattr(socket, "AF_UNIX") else None
        host = str(folder / "engine.sock") if folder else "127.0.0.1"
        try:
            server = xllamacpp.Server(_params(xllamacpp, setup, host, key))
            # A first token shows that the model can chat. It also makes closing safe: freed before its thread has
            # begun to serve, the native server waits for that thread for ever.
            server.handle_chat_completions({"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1})
        except Exception as error:
            _remove(folder)
            raise ModelUnavailable(
                f"llama.cpp cannot load {setup.path}: {_why(setup.path) or error}",
                remedy="Check the file and the engine's options (`context`, `gpu_layers`), or run `lbt-sim doctor`.",
            ) from error
        return cls(server, key, folder)

    @property
    def version(self) -> str:
        """The version of xllamacpp."""
        import xllamacpp

        return str(xllamacpp.__version__)

    def chat(self, body: Mapping[str, Any], stopped: Callable[[], bool] = lambda: False) -> object:
        """One chat completion, as llama.cpp's server would answer it; an error is `{'error': …}`.

        Args:
            body: The request.
            stopped: Asked at every token of a longer reply; once it says yes, the reply is given up.

        Raises:
            Stopped: The reply was given up.
        """
        if stopped():
            raise Stopped
        if body.get("max_tokens", SHORT) <= SHORT:
            answer: object = self._server.handle_chat_completions(dict(body))
            return answer
        chunks = _Chunks(stopped)
        options = {"stream": True, "stream_options": {"include_usage": True}}
        self._server.handle_chat_completions({**body, **options}, chunks)
        if chunks.stopped:
            raise Stopped
        return chunks.completion()

    def first_tokens(self, choices: Sequence[str]) -> Mapping[str, str] | None:
        """Choice -> the text of the token that begins it; None where the tokenizer cannot be asked."""
        asked = tuple(choices)
        if asked not in self._first:
            try:
                self._first[asked] = {choice: self._first_token(choice) for choice in asked}
            except (OSError, http.client.HTTPException, LookupError, TypeError, ValueError):
                self._first[asked] = None
        return self._first[asked]

    def count(self, messages: Sequence[Mapping[str, str]]) -> int | None:
        """The tokens of a prompt, chat template included; None where llama.cpp does not say."""
        try:
            said = self._post("/v1/chat/completions/input_tokens", {"messages": list(messages)})
            return int(said["input_tokens"])
        except (OSError, http.client.HTTPException, LookupError, TypeError, ValueError):
            return None

    def close(self) -> None:
        """Free the model's memory and threads."""
        self._server = None
        self._clean_up()

    def _first_token(self, text: str) -> str:
        said = self._post("/tokenize", {"content": text, "add_special": False, "with_pieces": True})
        piece = said["tokens"][0]["piece"]
        if not isinstance(piece, str) or not piece.strip():
            raise ValueError("the first token is no text of its own")
        return piece

    def _post(self, path: str, body: Mapping[str, Any]) -> Any:
        """What the embedded server answers to what the native calls do not offer."""
        host, _, port = self._address.partition("://")[2].rpartition(":")
        socket_path = None if port.isdecimal() else self._address.partition("://")[2]
        connection = (
            _UnixConnection(socket_path)
            if socket_path
            else http.client.HTTPConnection(host, int(port), timeout=_TIMEOUT)
        )
        try:
            headers = {"Authorization": f"Bearer {self._key}", "Content-Type": "application/json"}
            connection.request("POST", path, json.dumps(body), headers)
            return json.loads(connection.getresponse().read())
        finally:
            connection.close()


class _Chunks:
    """Puts a streamed reply together. Called with each chunk; returns whether to stop."""

    def __init__(self, stopped: Callable[[], bool]) -> None:
        self._asked = stopped
        self._text: dict[str, list[str]] = {"content": [], "reasoning_content": []}
        self._finish: object = None
        self._usage: object = None
        self._error: dict[str, Any] | None = None
        self.stopped = False

    def __call__(self, chunk: Any) -> bool:
        """Take a chunk."""
        for part in chunk if isinstance(chunk, list) else [chunk]:
            if "error" in part:
                self._error = part
            self._usage = part.get("usage") or self._usage
            for choice in part.get("choices") or ():
                self._finish = choice.get("finish_reason") or self._finish
                for key, texts in self._text.items():
                    texts.append((choice.get("delta") or {}).get(key) or "")
        self.stopped = self._asked()
        return self.stopped

    def completion(self) -> dict[str, Any]:
        """The same as if it had not been streamed."""
        if self._error is not None:
            return self._error
        message = {key: "".join(texts) for key, texts in self._text.items()}
        return {"choices": [{"message": message, "finish_reason": self._finish}], "usage": self._usage}


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=_TIMEOUT)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def _params(xllamacpp: Any, setup: Setup, host: str, key: str) -> Any:
    params = xllamacpp.CommonParams()
    params.model.path = str(setup.path)
    # llama.cpp divides the context among its slots; each is to have the whole of what was asked for.
    params.n_ctx = setup.context * setup.parallel
    params.n_parallel = setup.parallel
    params.n_gpu_layers = setup.gpu_layers
    params.cpuparams.n_threads = setup.threads
    params.cpuparams_batch.n_threads = setup.threads
    params.cache_ram_mib = setup.cache_mib
    params.fit_params = False  # or llama.cpp would silently shrink the context
    params.warmup = False
    params.verbosity = SILENT
    params.hostnames = [host]
    params.api_keys = [key]
    params.n_threads_http = 1
    params.ui = False
    params.endpoint_slots = False
    return params


def _why(path: Path) -> str:
    """What llama.cpp says about a file that it does not load, asked in a process of its own."""
    code = (
        "import os, sys, xllamacpp\n"
        "params = xllamacpp.CommonParams()\n"
        "params.model.path = sys.argv[1]\n"
        f"params.n_ctx, params.warmup, params.verbosity = 256, False, {ERRORS}\n"
        "server = xllamacpp.Server(params)\n"
        "os._exit(0)\n"  # freeing it here might never end, see `load`
    )
    try:
        done = subprocess.run(  # noqa: S603 - our own interpreter and code; the path is an argument
            [sys.executable, "-c", code, str(path)], capture_output=True, timeout=60, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    for line in done.stderr.decode("utf-8", "replace").splitlines():
        if "error loading model" in line:
            return line.partition("error loading model: ")[2].strip() or line.strip()
    return "" if done.returncode else "the file is fine, so its options or the memory are not"


def _remove(folder: Path | None) -> None:
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)
