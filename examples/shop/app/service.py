"""What the tiers share: an HTTP server whose handlers return JSON, health, and calls to the next tier."""

import json
import os
import signal
import sys
import urllib.request
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlsplit

TIMEOUT_S = 5.0
Handler = Callable[[dict[str, str]], object]
_routes: dict[str, Handler] = {"/healthz": lambda _query: {"ok": True}}


def route(path: str) -> Callable[[Handler], Handler]:
    """Serve ``path`` with the decorated function. It returns JSON data, or (content type, text)."""

    def register(handler: Handler) -> Handler:
        _routes[path] = handler
        return handler

    return register


def call(url: str) -> dict:
    """GET ``url`` of the next tier, as JSON. No connection is kept: each request may meet another pod."""
    with urllib.request.urlopen(url, timeout=TIMEOUT_S) as response:
        return json.load(response)


class _Request(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        handler = _routes.get(url.path)
        status, kind, body = 404, "application/json", json.dumps({"error": "no such page"})
        if handler is not None:
            try:
                answer = handler(dict(parse_qsl(url.query)))
                status, (kind, body) = 200, answer if isinstance(answer, tuple) else (kind, json.dumps(answer))
            except (OSError, RuntimeError) as err:
                status, body = 503, json.dumps({"error": str(err)})
        content = body.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(content)
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        if "/healthz" not in self.path and "/ready" not in self.path:
            print(f"{self.address_string()} {format % args}", flush=True)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


def serve() -> None:
    """Until SIGTERM."""
    port = int(os.environ.get("PORT", "8080"))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    server = _Server(("0.0.0.0", port), _Request)
    print(f"serving {', '.join(sorted(_routes))} on port {port}", flush=True)
    server.serve_forever()
