"""The process around the application: its socket, and how it ends.

    with listen("127.0.0.1", 8000) as listener:
        serve(app, listener, stop_seconds=120)     # returns after SIGTERM or Ctrl-C, when running requests are answered

Needs the extra ``serve`` (uvicorn).
"""

from __future__ import annotations

import math
import os
import signal
import socket
from types import FrameType
from typing import Any

import uvicorn

_MOST_CONNECTIONS = 1024


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one.

    Raises:
        ValueError: the address is not this machine's, or taken.
    """
    try:
        [family, _, _, _, address] = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family, backlog=_MOST_CONNECTIONS)
    except (OSError, OverflowError) as error:
        raise ValueError(f"cannot listen at {host}, port {port}: {error}") from error


def address(listener: socket.socket) -> str:
    """The URL of a listening socket."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


class _Server(uvicorn.Server):
    """Graceful after the first Ctrl-C; at once after the second, which can wait for no thread."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if sig == signal.SIGINT and self.should_exit:
            os._exit(130)
        super().handle_exit(sig, frame)


def serve(app: Any, listener: socket.socket, *, stop_seconds: float) -> None:
    """Answer until SIGTERM or Ctrl-C; then take no new connections, answer what runs, and return.

    A second Ctrl-C ends the process at once, with exit code 130. To be called from the main thread: it takes over these
    two signals.

    Args:
        app: an ASGI application.
        listener: where to.
        stop_seconds: how long running requests may take after the signal.
    """
    # uvicorn raises the signal that ended it once more, for the handlers of before.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        limit_concurrency=_MOST_CONNECTIONS,
        backlog=_MOST_CONNECTIONS,
        timeout_graceful_shutdown=math.ceil(stop_seconds),
        server_header=False,
    )
    _Server(config).run(sockets=[listener])
