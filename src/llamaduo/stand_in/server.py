"""An OpenAI-compatible server on loopback whose only model is the stand-in."""

import hashlib
import logging
import socket
import threading
import time
from functools import cache
from pathlib import Path
from typing import Self

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from llamaduo.stand_in.completion import MODEL, complete
from llamaduo.stand_in.validation import RequestError, checked

logger = logging.getLogger(__name__)


class LoopbackServer:
    """An application on a free port of 127.0.0.1, served by a thread of this process."""

    url: str
    """Without a path; known from ``start`` on."""

    def __init__(self, app: Starlette) -> None:
        config = uvicorn.Config(
            app,
            loop="asyncio",
            http="h11",
            lifespan="off",
            log_config=None,  # the process's own logging stays as it is
            log_level="warning",
            access_log=False,
            # A client that trains between two requests finds its connection open.
            timeout_keep_alive=3600,
        )
        self._server = uvicorn.Server(config)

    def start(self) -> None:
        """Serve; returns when requests are answered.

        Raises:
            RuntimeError: The server's thread ended before it served.
        """
        sock = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{sock.getsockname()[1]}"
        self._thread = threading.Thread(target=self._server.run, args=([sock],), daemon=True)
        self._thread.start()
        while not self._server.started:
            if not self._thread.is_alive():
                raise RuntimeError(f"the server at {self.url} did not start; see the log")
            time.sleep(0.01)

    def stop(self) -> None:
        """Let the requests in hand end, then close the port."""
        self._server.should_exit = True
        self._thread.join()


class StandIn:
    """The stand-in's server; ``base_url`` is known from ``start`` on."""

    def __init__(self) -> None:
        routes = [
            Route("/v1/chat/completions", _chat_completions, methods=["POST"]),
            Route("/v1/models", _models),
        ]
        handlers = {404: _unknown_url, 405: _unknown_url}
        self._server = LoopbackServer(Starlette(routes=routes, exception_handlers=handlers))

    @property
    def base_url(self) -> str:
        """What an OpenAI client takes."""
        return f"{self._server.url}/v1"

    def start(self) -> None:
        """Serve; returns when requests are answered."""
        self._server.start()
        logger.info(
            "%s at %s is an embedded stand-in, no LLM: it knows support-ticket triage only",
            MODEL,
            self.base_url,
        )

    def stop(self) -> None:
        """Let the requests in hand end, then close the port."""
        self._server.stop()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def edition() -> str:
    """Names the phrases, rules and judge as they are: other ones give other answers."""
    files = sorted(Path(__file__).parent.glob("*.py")) + sorted(Path(__file__).parent.glob("*.yml"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:8]


@cache
def running_stand_in() -> StandIn:
    """The stand-in of this process; it ends with the process."""
    stand_in = StandIn()
    stand_in.start()
    return stand_in


async def _chat_completions(request: Request) -> JSONResponse:
    raw = await request.body()
    try:
        body = checked(raw)
    except RequestError as refused:
        return JSONResponse(refused.body, status_code=refused.status)
    return JSONResponse(complete(body))


async def _models(_: Request) -> JSONResponse:
    model = {"id": MODEL, "object": "model", "created": 0, "owned_by": "llamaduo"}
    return JSONResponse({"object": "list", "data": [model]})


async def _unknown_url(request: Request, _: Exception) -> JSONResponse:
    refused = RequestError(f"Invalid URL ({request.method} {request.url.path})", status=404)
    return JSONResponse(refused.body, status_code=refused.status)
