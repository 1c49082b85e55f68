"""A server on loopback that answers what a test tells it, and remembers what it was asked."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True)
class Asked:
    """One request."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


Answer = tuple[int, Mapping[str, str], bytes]


@dataclass
class ScriptedServer:
    """Answers by a function.

    Attributes:
        url: its address.
        answer: returns status, headers and body of a request.
        log: the requests that came.
    """

    answer: Callable[[Asked], Answer]
    url: str = ""
    log: list[Asked] = field(default_factory=list)


@contextlib.contextmanager
def scripted(answer: Callable[[Asked], Answer]) -> Iterator[ScriptedServer]:
    """Serve while the block runs."""
    server = ScriptedServer(answer)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _do(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            asked = Asked(self.command, self.path, dict(self.headers.items()), body)
            server.log.append(asked)
            status, headers, content = server.answer(asked)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            with contextlib.suppress(OSError):  # a client that has enough hangs up
                self.wfile.write(content)

        do_GET = do_POST = _do  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    server.url = f"http://127.0.0.1:{http.server_port}"
    threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
