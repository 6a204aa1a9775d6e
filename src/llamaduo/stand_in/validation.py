"""What a chat request must be; what is not gets an error in the shape of the OpenAI API."""

import json
from typing import Any

from llamaduo.stand_in.completion import MODEL

_FORMATS = ("text", "json_object", "json_schema")


class RequestError(Exception):
    """A request that the OpenAI API refuses too; ``body`` has the shape of its errors."""

    def __init__(
        self, message: str, *, status: int = 400, param: str | None = None, code: str | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        error = {"message": message, "type": "invalid_request_error", "param": param, "code": code}
        self.body = {"error": error}


def checked(raw: bytes) -> dict[str, Any]:
    """The body of a request, once it is known to be valid.

    Raises:
        RequestError: What the OpenAI API would refuse too, or what the stand-in does not offer.
    """
    body = _parse(raw)
    if not isinstance(body, dict):
        raise RequestError("The JSON body of a request must be an object.")
    _check_model(body.get("model"))
    _check_messages(body.get("messages"))
    if body.get("stream"):
        raise _unsupported("stream", "this server does not stream")
    if body.get("n") not in (None, 1):
        raise _unsupported("n", "this server gives one choice")
    for name in ("max_tokens", "max_completion_tokens"):
        limit = body.get(name)
        if limit is not None and not (isinstance(limit, int) and limit >= 1):
            raise RequestError(
                f"Invalid '{name}': expected an integer of at least 1.",
                param=name,
                code="invalid_value",
            )
    _check_format(body.get("response_format"))
    return body


def _check_model(model: Any) -> None:
    if model is None:
        raise _missing("model")
    if model != MODEL:
        raise RequestError(
            f"The model {model!a} does not exist; this server has {MODEL!r} only.",
            status=404,
            code="model_not_found",
        )


def _check_messages(messages: Any) -> None:
    if messages is None:
        raise _missing("messages")
    if not isinstance(messages, list) or not messages:
        raise RequestError(
            "Invalid 'messages': expected an array with at least one message.",
            param="messages",
            code="invalid_type",
        )
    for i, message in enumerate(messages):
        if not (isinstance(message, dict) and isinstance(message.get("role"), str)):
            raise RequestError(
                f"Invalid 'messages[{i}]': expected an object with a role.",
                param=f"messages[{i}]",
                code="invalid_type",
            )
        if not _is_text(message.get("content"), message["role"]):
            raise RequestError(
                f"Invalid 'messages[{i}].content': expected a string or an array of text parts.",
                param=f"messages[{i}].content",
                code="invalid_type",
            )


def _is_text(content: Any, role: str) -> bool:
    if isinstance(content, list):
        return all(isinstance(part, dict) and isinstance(part.get("text"), str) for part in content)
    return isinstance(content, str) or (content is None and role == "assistant")


def _check_format(response_format: Any) -> None:
    if response_format is None:
        return
    kind = response_format.get("type") if isinstance(response_format, dict) else None
    if kind not in _FORMATS:
        raise RequestError(
            f"Invalid value: {kind!a}. Supported values are: {', '.join(map(repr, _FORMATS))}.",
            param="response_format.type",
            code="invalid_value",
        )


def _missing(param: str) -> RequestError:
    return RequestError(
        f"Missing required parameter: '{param}'.", param=param, code="missing_required_parameter"
    )


def _unsupported(param: str, why: str) -> RequestError:
    return RequestError(
        f"Unsupported value for '{param}': {why}.", param=param, code="unsupported_value"
    )


def _parse(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise RequestError("We could not parse the JSON body of your request.") from error
