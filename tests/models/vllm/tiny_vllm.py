"""A stand-in for vLLM with faults, for the life of a server."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    for name in ("model", "served-model-name", "host", "fail-start", "wrong-name"):
        parser.add_argument(f"--{name}", default="")
    parser.add_argument("--port", type=int)
    parser.add_argument("--start-seconds", type=float, default=0.0)
    parser.add_argument("--child", action="store_true")
    parser.add_argument("--ignore-term", action="store_true")
    return parser.parse_args()


ARGS = arguments()
FAULT = {"fault": "none", "after": 0}
COUNT = [0]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def send(self, value: object, status: int = 200) -> None:
        data = value.encode() if isinstance(value, str) else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def allowed(self) -> bool:
        if self.headers.get("Authorization") == f"Bearer {os.environ.get('VLLM_API_KEY')}":
            return True
        self.send({"error": "Unauthorized"}, 401)
        return False

    def do_GET(self) -> None:
        if self.path == "/health":
            self.send("", 503 if FAULT["fault"] == "engine_dead" else 200)
        elif self.path == "/metrics":
            self.send(f'vllm:prompt_tokens_total{{engine="0"}} {COUNT[0]}.0\n')
        elif self.path == "/v1/models" and self.allowed():
            self.send({"data": [{"id": ARGS.wrong_name or ARGS.served_model_name}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/stub/faults":
            FAULT.update(body)
            self.send({})
            return
        if not self.allowed():
            return
        if FAULT["fault"] == "hang":
            time.sleep(3600)
        if FAULT["fault"] == "crash":
            FAULT["after"] -= 1
            if FAULT["after"] < 0:
                os.kill(os.getpid(), signal.SIGKILL)
        if FAULT["fault"] == "engine_dead":
            self.send({"error": {"message": "EngineDeadError"}}, 500)
            return
        COUNT[0] += 1
        self.send({"choices": [{"index": 0, "message": {"content": "x"}, "finish_reason": "length"}]})


class Server(ThreadingHTTPServer):
    allow_reuse_address = True
    allow_reuse_port = False
    daemon_threads = True


def main() -> None:
    if ARGS.ignore_term:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if ARGS.child:
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    server = Server((ARGS.host, ARGS.port), Handler, bind_and_activate=False)
    server.server_bind()
    time.sleep(ARGS.start_seconds)
    if ARGS.fail_start:
        sys.exit(ARGS.fail_start)
    server.server_activate()
    threading.Thread(target=server.serve_forever).start()


main()
