"""A small file server with ranges and conditions, for unit tests that must run anywhere."""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import md5
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@dataclass
class Row:
    """One request: the bytes asked for, the status answered, and the client's port."""

    path: str
    start: int
    end: int
    status: int
    port: int


@dataclass
class PlainServer:
    """A folder on loopback.

    Attributes:
        ranges: whether it honours ranges.
        delay: seconds before each answer.
        most: most requests that were answered at once.
    """

    url: str
    root: Path
    log: list[Row] = field(default_factory=list)
    ranges: bool = True
    delay: float = 0.0
    most: int = 0
    at_once: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        with self.lock:
            self.at_once += 1
            self.most = max(self.most, self.at_once)
        time.sleep(self.delay)
        self._answer(handler)

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        path = self.root / handler.path.lstrip("/")
        if not path.is_file():
            return self._refuse(handler)
        data = path.read_bytes()
        tag = f'"{md5(data).hexdigest()}"'
        match = re.fullmatch(r"bytes=(\d+)-(\d+)", handler.headers.get("Range", ""))
        start, end = (int(match[1]), min(int(match[2]) + 1, len(data))) if match else (0, len(data))
        status, body = (206, data[start:end]) if match and self.ranges else (200, data)
        if handler.headers.get("If-None-Match") == tag:
            status, body = 304, b""
        if handler.headers.get("If-Match", tag) != tag:
            status, body = 412, b""
        with self.lock:
            self.log.append(Row(handler.path, start, end, status, handler.client_address[1]))
            self.at_once -= 1
        handler.send_response(status)
        handler.send_header("ETag", tag)
        handler.send_header("Content-Length", str(len(body)))
        if status == 206:
            handler.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(data)}")
        handler.end_headers()
        handler.wfile.write(body)

    def _refuse(self, handler: BaseHTTPRequestHandler) -> None:
        with self.lock:
            self.log.append(Row(handler.path, 0, 0, 404, handler.client_address[1]))
            self.at_once -= 1
        handler.send_response(404)
        handler.send_header("Content-Length", "0")
        handler.end_headers()


@contextlib.contextmanager
def serve(root: Path) -> Iterator[PlainServer]:
    """Serve a folder while the block runs."""
    server = PlainServer("", root)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            server.answer(self)

        def log_message(self, *_: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    server.url = f"http://127.0.0.1:{http.server_port}"
    threading.Thread(target=http.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
