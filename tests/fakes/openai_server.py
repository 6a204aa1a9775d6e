"""A real OpenAI-compatible server on loopback with scripted faults and its own account.

It answers as the stand-in does unless a fault is scripted. ``served`` is the oracle: what the
client claims to have sent and received is compared with it.
"""

import json
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from llamaduo.stand_in.server import LoopbackServer, complete


@dataclass
class Fault:
    """One answer that is not the stand-in's."""

    status: int = 200
    body: str = ""
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class FakeOpenAI:
    """Use as a context manager; ``faults`` are served first, in their order."""

    faults: deque[Fault] = field(default_factory=deque)
    served: list[dict] = field(default_factory=list)
    """Per request: its body and the status that it got."""
    rewrite: Callable[[str], str] = str
    """Changes the text of each answer."""

    def __enter__(self):
        self._lock = threading.Lock()
        routes = [Route("/v1/chat/completions", self._chat, methods=["POST"])]
        self._server = LoopbackServer(Starlette(routes=routes))
        self._server.start()
        self.base_url = f"{self._server.url}/v1"
        return self

    def __exit__(self, *_):
        self._server.stop()

    async def _chat(self, request: Request) -> Response:
        body = await request.json()
        with self._lock:
            fault = self.faults.popleft() if self.faults else None
            self.served.append({"body": body, "status": fault.status if fault else 200})
        if fault:
            return Response(
                fault.body, fault.status, {"content-type": "application/json", **fault.headers}
            )
        answer = complete({**body, "model": "stand-in-triage"})
        message = answer["choices"][0]["message"]
        message["content"] = self.rewrite(message["content"])
        return Response(json.dumps(answer), media_type="application/json")
