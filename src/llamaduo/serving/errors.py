"""What a request is refused with, in the shape of OpenAI's errors."""

from __future__ import annotations

from starlette.responses import JSONResponse

INVALID, LIMITED, OURS = "invalid_request_error", "rate_limit_error", "server_error"
"""Types of error: the request's fault, too many requests, the server's fault."""


class Refusal(Exception):
    """A request that is not answered.

    Args:
        message: For whoever wrote the request; nothing of this machine.
        param: The field at fault.
    """

    def __init__(
        self,
        status: int,
        message: str,
        code: str | None = None,
        *,
        kind: str = INVALID,
        param: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers
        self.body = {"error": {"message": message, "type": kind, "param": param, "code": code}}

    def response(self) -> JSONResponse:
        """The whole HTTP response."""
        return JSONResponse(self.body, self.status, headers=self.headers)


class EngineError(Exception):
    """The engine has ended, or has failed on a request."""
