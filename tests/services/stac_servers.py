"""Servers on loopback for the tests of source ``stac``: files, catalogue, and a proxy with faults.

Files are served by nginx (Debian ``nginx-light``), the catalogue by pgstac (Debian
``postgresql`` and ``postgresql-NN-postgis-3``) behind stac-fastapi-pgstac, which lives in an
environment of its own (``.cache/stac-server`` or ``UNVEIL_STAC_SERVER``; ``.ci/run`` makes it).
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shutil
import socket
import struct
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

ROOT = Path(__file__).resolve().parents[2]
API_ENVIRONMENT = Path(os.environ.get("UNVEIL_STAC_SERVER", ROOT / ".cache" / "stac-server"))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(check: Callable[[], object], process: subprocess.Popen, log: Path, seconds=60) -> None:
    """Wait until ``check`` does not raise any more; skip the tests if the server dies."""
    ends = time.monotonic() + seconds
    while True:
        try:
            check()
            return
        except OSError:
            if process.poll() is not None or time.monotonic() > ends:
                pytest.skip(f"the server did not start: {log.read_text()[-500:]}")
            time.sleep(0.05)


@contextlib.contextmanager
def running(command: list[str], log: Path, **options) -> Iterator[subprocess.Popen]:
    with open(log, "w") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=stream, **options)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()


# --- files ------------------------------------------------------------------------------

NGINX = """
daemon off; pid {folder}/nginx.pid; error_log {folder}/error.log; worker_processes 1;
events {{ worker_connections 128; }}
http {{
  log_format ranges '$request_uri|$http_range|$status|$body_bytes_sent';
  access_log {folder}/access.log ranges;
  client_body_temp_path {folder}/a; proxy_temp_path {folder}/b; fastcgi_temp_path {folder}/c;
  uwsgi_temp_path {folder}/d; scgi_temp_path {folder}/e;
  server {{ listen 127.0.0.1:{port}; root {root}; default_type application/octet-stream; }}
}}
"""


@dataclass
class FileServer:
    """nginx with a folder."""

    url: str
    root: Path
    _log: Path

    def requests(self) -> list[tuple[str, int, int, int, int]]:
        """Return path, first byte, end, status and bytes sent of every request so far."""
        time.sleep(0.1)  # nginx writes its log when a request has ended
        rows = []
        for line in self._log.read_text().splitlines() if self._log.exists() else []:
            path, span, status, sent = line.rsplit("|", 3)
            match = re.fullmatch(r"bytes=(\d+)-(\d+)", span)
            first, end = (int(match[1]), int(match[2]) + 1) if match else (0, 0)
            rows.append((path, first, end, int(status), int(sent)))
        return rows

    def bytes_sent(self) -> int:
        return sum(row[4] for row in self.requests())


@contextlib.contextmanager
def file_server(root: Path, folder: Path) -> Iterator[FileServer]:
    binary = shutil.which("nginx") or shutil.which("/usr/sbin/nginx")
    if not binary:
        pytest.skip("no nginx; install nginx-light")
    folder.mkdir(parents=True, exist_ok=True)
    for path in (folder, root):
        path.chmod(0o755)
    port, configuration = free_port(), folder / "nginx.conf"
    user = "user root;" if os.geteuid() == 0 else ""
    configuration.write_text(user + NGINX.format(folder=folder, port=port, root=root))
    command = [binary, "-c", str(configuration), "-p", str(folder)]
    with running(command, folder / "nginx.out") as process:
        wait_for(
            lambda: socket.create_connection(("127.0.0.1", port), 1).close(),
            process,
            folder / "nginx.out",
        )
        yield FileServer(f"http://127.0.0.1:{port}", root, folder / "access.log")


# --- faults -----------------------------------------------------------------------------


@dataclass
class Fault:
    """What happens to one answer between server and client.

    Attributes:
        status: answer with this error instead.
        headers: headers added or, with value None, taken out.
        reset_after: cut the connection off after so many bytes of the body.
        lengthen: added to Content-Length.
        drip: seconds between single bytes.
        rate: bytes a second.
    """

    status: int = 0
    headers: dict[str, str | None] = field(default_factory=dict)
    reset_after: int | None = None
    lengthen: int = 0
    drip: float = 0.0
    rate: float = 0.0


class Proxy:
    """Passes requests on, with the faults that ``plan(path, number of the request)`` returns.

    With ``signed`` it hands out tokens at ``/token/...`` and refuses what is not signed with one
    of ``signatures``.
    """

    def __init__(self, upstream: str, plan: Callable[[str, int], Fault | None]) -> None:
        self.plan, self.signed, self.tokens = plan, False, 0
        self.signatures: set[str] = set()
        self.log: list[tuple[str, int, int]] = []
        self._lock, self._host = threading.Lock(), urlsplit(upstream).netloc
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                proxy.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.handle_error = lambda *_: None  # clients that hang up are part of the tests
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        parts = urlsplit(handler.path)
        if parts.path.startswith("/token/"):
            return self._hand_out(handler)
        if self.signed and not self.signatures & set(parse_qs(parts.query).get("sig", [])):
            return self._send(handler, 403, b"expired", {})
        match = re.fullmatch(r"bytes=(\d+)-(\d+)", handler.headers.get("Range", ""))
        span = (int(match[1]), int(match[2]) + 1) if match else (0, 0)
        with self._lock:
            self.log.append((parts.path, *span))
            fault = self.plan(parts.path, len(self.log)) or Fault()
        if fault.status:
            return self._send(handler, fault.status, b"", fault.headers)
        return self._pass_on(handler, parts.path, fault)

    def _hand_out(self, handler: BaseHTTPRequestHandler) -> None:
        self.tokens += 1
        token = f"token-{self.tokens}"
        self.signatures.add(token)
        body = {"token": f"sig={token}", "msft:expiry": "2999-01-01T00:00:00Z"}
        self._send(handler, 200, json.dumps(body).encode(), {})

    def _send(self, handler, status: int, body: bytes, headers: dict) -> None:
        handler.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)

    def _pass_on(self, handler, path: str, fault: Fault) -> None:
        upstream = http.client.HTTPConnection(self._host, timeout=30)
        wanted = ("Range", "If-Match", "If-None-Match", "If-Modified-Since", "User-Agent")
        headers = {name: handler.headers[name] for name in wanted if handler.headers[name]}
        upstream.request("GET", path, headers=headers)
        response = upstream.getresponse()
        body = response.read()
        upstream.close()
        handler.send_response(response.status)
        for name, value in {**dict(response.getheaders()), **fault.headers}.items():
            if name.lower() in ("connection", "content-length", "date", "server") or value is None:
                continue
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(body) + fault.lengthen))
        handler.end_headers()
        with contextlib.suppress(ConnectionError):
            self._write(handler, body, fault)

    def _write(self, handler, body: bytes, fault: Fault) -> None:
        if fault.lengthen > 0:
            handler.close_connection = True
        if fault.reset_after is not None:
            handler.wfile.write(body[: fault.reset_after])
            handler.wfile.flush()
            handler.connection.setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
            )
            handler.close_connection = True
            handler.connection.close()
            return
        if fault.drip:
            for start in range(len(body)):
                handler.wfile.write(body[start : start + 1])
                time.sleep(fault.drip)
            return
        step = 4096 if fault.rate else len(body) or 1
        for start in range(0, len(body), step):
            handler.wfile.write(body[start : start + step])
            if fault.rate:
                time.sleep(step / fault.rate)


# --- catalogue --------------------------------------------------------------------------


def _as_postgres(command: list[str]) -> list[str]:
    """PostgreSQL does not run as root."""
    if os.geteuid() != 0:
        return command
    return ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", *command]


@contextlib.contextmanager
def catalogue(folder: Path, collections: list[dict], items: list[dict]) -> Iterator[str]:
    """Start pgstac with some items and yield the address of its API."""
    binaries = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    python = API_ENVIRONMENT / "bin" / "python"
    if not binaries or not list(Path("/usr/share/postgresql").glob("*/extension/postgis.control")):
        pytest.skip("no PostgreSQL with PostGIS; install postgresql and postgresql-NN-postgis-3")
    if not python.exists():
        pytest.skip(f"no stac-fastapi-pgstac in {API_ENVIRONMENT}; .ci/run installs it")
    folder.mkdir(parents=True, exist_ok=True)
    data, log = folder / "data", folder / "postgres.log"
    data.mkdir()
    if os.geteuid() == 0:
        shutil.chown(data, "postgres")
        for parent in (folder, *folder.parents):
            if parent.stat().st_uid == 0 and not parent.stat().st_mode & 0o001:
                parent.chmod(parent.stat().st_mode | 0o011)
    binary, port = binaries[-1].parent, free_port()
    initdb = [str(binary / "initdb"), "-D", str(data), "-U", "postgres", "-A", "trust", "-N"]
    made = subprocess.run(_as_postgres(initdb), capture_output=True, text=True, cwd="/")
    if made.returncode:
        pytest.skip(f"initdb failed: {made.stderr[-500:]}")
    options = {"listen_addresses": "127.0.0.1", "port": port, "unix_socket_directories": data}
    options |= {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off"}
    server = [str(binary / "postgres"), "-D", str(data)]
    server += [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
    where = {"PGHOST": "127.0.0.1", "PGPORT": str(port), "PGUSER": "postgres"}
    where |= {"PGDATABASE": "postgres", "PGPASSWORD": "none"}
    with running(_as_postgres(server), log, cwd="/") as process:
        wait_for(lambda: socket.create_connection(("127.0.0.1", port), 1).close(), process, log)
        environment = {**os.environ, **where, "USE_API_HYDRATE": "false"}
        _load(python, environment, folder, collections, items)
        yield from _serve_api(python, environment, folder)


def _load(python: Path, environment, folder: Path, collections, items) -> None:
    files = {"collections": collections, "items": items}
    steps = [["migrate"]]
    for name, rows in files.items():
        path = folder / f"{name}.ndjson"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        steps.append(["load", name, str(path), "--method", "upsert"])
    for step in steps:
        command = [str(python.parent / "pypgstac"), *step]
        for attempt in range(20):
            done = subprocess.run(command, env=environment, capture_output=True, text=True)
            if done.returncode == 0:
                break
            if "starting up" not in done.stderr or attempt == 19:
                pytest.skip(f"pypgstac {step[0]} failed: {done.stderr[-800:]}")
            time.sleep(0.2)


def _serve_api(python: Path, environment, folder: Path) -> Iterator[str]:
    port, log = free_port(), folder / "api.log"
    command = [str(python), "-m", "uvicorn", "stac_fastapi.pgstac.app:create_app", "--factory"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--log-level", "warning"]
    url = f"http://127.0.0.1:{port}"
    with running(command, log, env=environment, cwd=folder) as process:
        wait_for(lambda: urllib.request.urlopen(f"{url}/collections", timeout=5), process, log)
        yield url
