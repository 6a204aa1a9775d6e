"""A release on a port, until somebody ends it."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn
from starlette.types import ASGIApp

from llamaduo.serving.engines import Engine

IDLE_S = 75
"""A connection on which nothing is asked is closed then."""
FAREWELL_S = 5
"""Answers that have failed with the engine have so long to reach their clients."""


class Server(uvicorn.Server):
    """Uvicorn, but what ends it also ends the engine, so that no request has to be waited for.

    Args:
        ready: Called when requests are answered.
    """

    def __init__(
        self, app: ASGIApp, engine: Engine, ready: Callable[[], None] = lambda: None
    ) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                loop="asyncio",
                http="h11",
                ws="none",
                lifespan="off",
                log_config=None,  # the process's own logging stays as it is
                log_level="warning",
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=IDLE_S,
                timeout_graceful_shutdown=FAREWELL_S,
            )
        )
        self._engine, self._ready = engine, ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve from now on."""
        await super().startup(sockets)
        self._ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Fail the requests in hand, then close."""
        await asyncio.to_thread(self._engine.close)
        await super().shutdown(sockets)


def bound(host: str, port: int) -> socket.socket:
    """A socket at the port that does not listen yet: whoever listens first has the port.

    Raises:
        OSError: There is no such host, or the port is taken.
    """
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    held = socket.socket(family, kind, protocol)
    try:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(address)
    except OSError:
        held.close()
        raise
    return held


def serve_until_ended(server: Server, held: socket.socket) -> None:
    """Answer requests until SIGINT or SIGTERM, which end this as they should: without an error."""
    with _deaf():
        server.run(sockets=[held])


@contextmanager
def _deaf() -> Iterator[None]:
    """Uvicorn sends itself the signals that have ended it once more; nobody acts on them."""
    signals = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, signal.SIG_IGN) for number in signals}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
