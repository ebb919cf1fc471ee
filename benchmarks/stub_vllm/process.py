"""The command line, and the process that serves."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from aiohttp import web

from .server import Stub


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Read the command line; what is not known is ignored."""
    parser = argparse.ArgumentParser(
        description="A stand-in for a vLLM server.", allow_abbrev=False, epilog="Other flags are ignored."
    )
    add = parser.add_argument
    add("--model", default="stub")
    add("--served-model-name", nargs="+")
    add("--host", default="127.0.0.1")
    add("--port", type=int, default=8000, help="0: any; it is told on standard error")
    add("--api-key", help="or VLLM_API_KEY in the environment")
    add("--lora-modules", nargs="+", default=[], metavar="NAME=FOLDER")
    add("--max-model-len", type=int, default=4096)
    add("--max-logprobs", type=int, default=20)
    add("--enable-prompt-tokens-details", action="store_true")
    add("--reasoning-parser", help="thoughts are told apart from the content")
    time_ = parser.add_argument_group("time")
    add = time_.add_argument
    add("--seconds", type=float, default=0.0, help="of a call")
    add("--seconds-per-prompt-token", type=float, default=0.0, help="that is not in the prefix cache")
    add("--seconds-per-output-token", type=float, default=0.0)
    add("--slots", "--max-num-seqs", type=int, default=64, help="conversations at a time")
    add("--queue", type=int, help="more than so many waiting are refused")
    add("--refuse-status", type=int, default=503)
    add("--output-tokens", type=int, default=16, help="of free text")
    add("--block", "--block-size", type=int, default=16, help="tokens of a block of the prefix cache")
    add("--cache-tokens", type=int, default=1 << 20, help="0: no prefix cache")
    add("--no-enable-prefix-caching", dest="cache_tokens", action="store_const", const=0)
    add("--share-in-flight", action="store_true", help="what a call computes serves others at once")
    faults = parser.add_argument_group("faults")
    add = faults.add_argument
    add("--fault", type=json.loads, action="append", default=[], metavar="JSON", help='as {"fault": "hang"}')
    add("--once", type=Path, metavar="FILE", help="faults of the command line only where FILE is not there; makes it")
    add("--start-seconds", type=float, default=0.0, help="between taking the port and listening")
    add("--fail-start", metavar="TEXT")
    add("--wrong-name", metavar="NAME", help="serves the model under another name")
    add("--child", action="store_true", help="has a child process, as vLLM has, which SIGKILL of this one leaves")
    add("--ignore-term", action="store_true", help="ignores SIGTERM")
    add("--no-batch", action="store_true")
    add("--no-tokenize", action="store_true")
    add("--no-metrics", action="store_true")
    add("--no-logprob-ids", action="store_true", help="ignores logprob_token_ids")
    add("--no-structured", action="store_true")
    add("--thinking", action="store_true", help="a reasoning model, whose template can keep it from thinking")
    add("--thinking-switch", default="enable_thinking", metavar="KEYWORD", help="that does so when it is false")
    add("--reasoning-field", default="reasoning", help="reasoning_content: as older versions call it")
    args, _ = parser.parse_known_args(["--model", *argv[1:]] if argv[:1] == ["serve"] else list(argv))
    if args.once is not None:
        if args.once.exists():
            args.fault, args.fail_start, args.wrong_name, args.start_seconds = [], None, None, 0.0
        args.once.touch()
    return args


def _child() -> int:
    """A process of our group that outlives us if we are killed; for ten minutes, so that no test leaves it for ever."""
    child = os.fork()
    if child:
        return child
    end = time.monotonic() + 600
    while time.monotonic() < end:
        time.sleep(1)
    os._exit(0)


def runner_of(stub: Stub) -> web.ServerRunner:
    """The HTTP server around it, for the running event loop."""
    loop = asyncio.get_running_loop()

    def request(message: Any, payload: Any, protocol: Any, writer: Any, task: Any) -> web.BaseRequest:
        return web.BaseRequest(message, payload, protocol, writer, task, loop, client_max_size=1 << 30)

    # A call whose client is gone is given up, as in vLLM.
    server = web.Server(stub.handle, request_factory=request, handler_cancellation=True, access_log=None)
    return web.ServerRunner(server, shutdown_timeout=0.05)


async def serve(args: argparse.Namespace, port: socket.socket) -> None:
    """Listen on a bound socket until SIGTERM."""
    ended, loop = asyncio.Event(), asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, ended.set)
    if not args.ignore_term:
        loop.add_signal_handler(signal.SIGTERM, ended.set)
    host, number = port.getsockname()[:2]
    where = f"http://{host}:{number}"
    print(f"INFO:     Process {os.getpid()} has taken {where}", file=sys.stderr, flush=True)
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(ended.wait(), args.start_seconds or 0.001)
        return
    if args.fail_start:
        print(f"Traceback (most recent call last):\nRuntimeError: {args.fail_start}", file=sys.stderr)
        sys.exit(1)
    stub = Stub(args)
    for fault in args.fault:
        stub.switch(fault)
    runner = runner_of(stub)
    await runner.setup()
    try:
        await web.SockSite(runner, port, backlog=4096).start()
        print(f"INFO:     Application startup complete. Listening on {where}", file=sys.stderr, flush=True)
        await ended.wait()
    finally:
        await runner.cleanup()


def main(argv: Sequence[str] | None = None) -> None:
    """Run the server."""
    args = arguments(sys.argv[1:] if argv is None else argv)
    if args.ignore_term:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    child = _child() if args.child else None
    with socket.socket() as port:
        port.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            port.bind((args.host, args.port))  # as vLLM does, long before it listens
            asyncio.run(serve(args, port))
        finally:
            if child is not None:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
