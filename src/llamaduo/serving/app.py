"""The front: routes, the key, and errors in OpenAI's shape."""

from __future__ import annotations

import hmac
import time

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from llamaduo.serving.completions import ChatCompletions
from llamaduo.serving.engines import Engine
from llamaduo.serving.errors import Refusal
from llamaduo.serving.limits import Limits
from llamaduo.serving.student import Student

HEALTH = "/health"


def build_app(student: Student, engine: Engine, limits: Limits, api_key: str) -> ASGIApp:
    """The whole application.

    Args:
        api_key: An empty one is not asked for.
    """
    model = {
        "id": student.name,
        "object": "model",
        "created": int(time.time()),
        "owned_by": "llamaduo",
    }

    def models(_: Request) -> Response:
        return JSONResponse({"object": "list", "data": [model]})

    def one_model(request: Request) -> Response:
        asked = request.path_params["model"]
        if asked != student.name:
            message = f"There is no model {asked!r} here, only {student.name!r}."
            return Refusal(404, message, "model_not_found", param="model").response()
        return JSONResponse(model)

    def health(_: Request) -> Response:
        is_alive = engine.is_alive()
        status = "ok" if is_alive else "the engine has ended"
        return JSONResponse({"status": status}, 200 if is_alive else 503)

    routes = [
        Route("/v1/chat/completions", ChatCompletions(student, engine, limits), methods=["POST"]),
        Route("/v1/models", models),
        Route("/v1/models/{model:path}", one_model),
        Route(HEALTH, health),
    ]
    app = Starlette(routes=routes, exception_handlers={HTTPException: _unrouted})
    app.router.redirect_slashes = False
    return _Guard(app, api_key)


class _Guard:
    """Turns away who has not the key, before anything of the request is read.

    Where there is no key, it turns away web pages: any page that a browser on this machine shows
    could ask the student, and browsers tell whose page it is.
    """

    def __init__(self, app: ASGIApp, key: str) -> None:
        self._app = app
        self._expected = f"Bearer {key}".encode() if key else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = None if scope["path"] == HEALTH else self._refusal(dict(scope["headers"]))
        answer = refusal.response() if refusal else self._app
        await answer(scope, receive, send)

    def _refusal(self, headers: dict[bytes, bytes]) -> Refusal | None:
        if self._expected is None:
            if b"origin" not in headers:
                return None
            return Refusal(403, "Without a key this server answers no web pages.", "origin_refused")
        if hmac.compare_digest(headers.get(b"authorization", b""), self._expected):
            return None
        return Refusal(
            401,
            "The API key is missing or wrong.",
            "invalid_api_key",
            headers={"WWW-Authenticate": "Bearer", "Connection": "close"},
        )


async def _unrouted(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101  (it is registered for these)
    what = {404: "There is no", 405: "Not the method of"}.get(error.status_code, error.detail)
    message = f"{what} {request.url.path}: {request.method}."
    return Refusal(error.status_code, message, headers=dict(error.headers or {})).response()
