"""Serves optuna-dashboard on this machine only, read-only unless asked otherwise."""

from __future__ import annotations

import errno
import json
import re
import socketserver
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import urlsplit
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

import optuna_dashboard
from optuna.storages import BaseStorage

from search_spaces.errors import InputError
from tuner.report.arranged import Arranged
from tuner.study.artifacts import Artifacts

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
Application = Callable[[Environ, StartResponse], Iterable[bytes]]

_LOOPBACK = "127.0.0.1"
# Any port: the page may be looked at through `ssh -L`. Names alone keep out DNS rebinding.
_HOST = re.compile(r"(localhost|127\.0\.0\.1)(:\d{1,5})?", re.IGNORECASE)
_READS = ("GET", "HEAD", "OPTIONS")
_REPLACED = ("access-control-allow-origin", "content-security-policy")  # headers of the dashboard's own
# Our report is a page of its own with inline scripts; `sandbox` keeps it from the dashboard's origin.
_REPORT_POLICY = (
    "sandbox allow-scripts allow-downloads; default-src 'none'; script-src 'unsafe-inline'; "
    "style-src 'unsafe-inline'; img-src data: blob:"
)
# The dashboard's page: its one script, which makes WebGL figures by `eval`, styles that its components write, pictures
# that its figures make of themselves. Names and notes come from anybody: nothing in them is run, fetched or framed.
_PAGE_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-eval'; style-src 'self' data: 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; object-src 'none'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)


class Guard:
    """WSGI middleware: refuses foreign hosts and origins, and writes unless they were asked for."""

    def __init__(self, application: Application, *, writable: bool = False) -> None:
        self._application = application
        self._writable = writable

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Answers a request, or passes it on."""
        method = environ.get("REQUEST_METHOD", "GET")
        if not _HOST.fullmatch(environ.get("HTTP_HOST", "")):
            return _refuse(start_response, "403 Forbidden", "this server answers to localhost only")
        if method not in _READS:
            if not self._writable:
                reason = "the dashboard is read-only here: the run writes its study itself"
                return _refuse(start_response, "405 Method Not Allowed", reason)
            origin = environ.get("HTTP_ORIGIN")
            if origin is not None and not _HOST.fullmatch(urlsplit(origin).netloc):
                return _refuse(start_response, "403 Forbidden", "writes are accepted from localhost only")

        def start(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
            kept = [(k, v) for k, v in headers if k.lower() not in _REPLACED]
            handed_out = environ.get("PATH_INFO", "").startswith("/artifacts/")
            kept.append(("Content-Security-Policy", _REPORT_POLICY if handed_out else _PAGE_POLICY))
            kept += [("X-Content-Type-Options", "nosniff"), ("Referrer-Policy", "no-referrer")]
            return start_response(status, kept, *rest)

        return self._application(environ, start)


def _refuse(start_response: StartResponse, status: str, reason: str) -> Iterable[bytes]:
    body = json.dumps({"reason": reason}).encode()
    headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
    headers.append(("Content-Security-Policy", _PAGE_POLICY))
    if status.startswith("405"):
        headers.append(("Allow", ", ".join(_READS)))
    start_response(status, headers)
    return [body]


class _Handler(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Stays silent: the terminal belongs to the command."""

    def address_string(self) -> str:
        """The peer's address, without a name look-up."""
        return str(self.client_address[0])


class _ThreadingServer(socketserver.ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def server_bind(self) -> None:
        """Binds without the look-up of this machine's name, which can take seconds."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = _LOOPBACK, int(self.server_address[1])
        self.setup_environ()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that goes away is no error worth a traceback."""


class DashboardServer:
    """The dashboard of one storage on a loopback port; a context manager that closes the port.

    Args:
        storage: Optuna storage or its URL; it must exist.
        artifacts: Holds the files that the page hands out.
        port: TCP port; 0 takes a free one.
        writable: Lets the page change the study (notes, deletions).

    Raises:
        InputError: The port is in use or not allowed.
    """

    def __init__(self, storage: BaseStorage | str, artifacts: Artifacts, port: int, *, writable: bool = False) -> None:
        if not 0 <= port <= 65535:
            raise InputError(f"port {port}: must be between 0 and 65535; 0 takes a free one")
        try:
            self._server = _ThreadingServer((_LOOPBACK, port), _Handler)
        except OSError as error:
            remedy = "choose another with --port, or 0 for a free one"
            if error.errno == errno.EADDRINUSE:
                raise InputError(f"port {port} is in use: {remedy}") from None
            raise InputError(f"port {port}: {error.strerror}; {remedy}") from None
        try:
            self._server.set_app(
                Guard(Arranged(optuna_dashboard.wsgi(storage, artifact_store=artifacts)), writable=writable)
            )
        except BaseException:
            self._server.server_close()
            raise

    @property
    def port(self) -> int:
        """The port in use."""
        return self._server.server_port

    @property
    def url(self) -> str:
        """Where to look."""
        return f"http://{_LOOPBACK}:{self.port}/dashboard"

    def serve_forever(self) -> None:
        """Answers requests until `close` is called from another thread."""
        self._server.serve_forever(poll_interval=0.1)

    def close(self) -> None:
        """Stops `serve_forever` of another thread."""
        self._server.shutdown()

    def __enter__(self) -> DashboardServer:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.server_close()


def serve(
    storage: BaseStorage | str,
    artifacts: Artifacts,
    port: int,
    *,
    writable: bool = False,
    ready: Callable[[str], None] | None = None,
) -> None:
    """Serves the dashboard on 127.0.0.1 until Ctrl-C.

    Args:
        storage: Optuna storage or its URL.
        artifacts: Holds the files that the page hands out.
        port: TCP port; 0 takes a free one.
        writable: Lets the page change the study.
        ready: Called with the URL once the port is open.

    Raises:
        InputError: The port is in use or not allowed.
        KeyboardInterrupt: On Ctrl-C, after the port is closed.
    """
    with DashboardServer(storage, artifacts, port, writable=writable) as server:
        if ready is not None:
            ready(server.url)
        server.serve_forever()
