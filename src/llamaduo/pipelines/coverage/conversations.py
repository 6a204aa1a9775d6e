"""From conversations, and from a log's request and response, to system message, prompt, response.

Messages are those of OpenAI's chat API, which its fine-tuning files and most proxies' logs have.
"""

import re
from typing import Any, Literal

from llamaduo.service_llm.answers import WHOLE
from llamaduo.service_llm.privacy import quote
from llamaduo.service_llm.text import parse_json

SYSTEM = ("system", "developer")
ASSISTANT = "assistant"
ROLES = (*SYSTEM, "user", ASSISTANT)
STATUS = ("status_code", "response_status", "status")
"""Their names for the HTTP status of a response."""
HTTP_STATUS = re.compile(r"(\d{3})(?:\.0)?")
"""Parquet makes 500.0 of 500 where another row has none."""
FIRST_ERROR = 400

Found = tuple[str, Any]
"""Where a value stands in the row, as a person would look for it, and the value."""


class BadRow(Exception):
    """A row that is no pair."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason


def read_messages(conversation: Found, turns: Literal["refuse", "last"]) -> dict[str, Found]:
    """The pair of a conversation that ends with an answer.

    Raises:
        BadRow: It is none, or holds what a pair cannot: several turns, tools, images.
    """
    return _pair(_located(conversation), turns)


def read_preference(
    question: Found, preferred: Found, turns: Literal["refuse", "last"]
) -> dict[str, Found]:
    """The pair of OpenAI's preference format: an input and the output that is preferred.

    Raises:
        BadRow: As ``read_messages``.
    """
    return _pair([*_located(_inside(question, "messages")), *_located(preferred)], turns)


def read_log(request: Found, response: Found, turns: Literal["refuse", "last"]) -> dict[str, Found]:
    """The pair of a request to a chat API and of its response, each an object or JSON text.

    Raises:
        BadRow: As ``read_messages``; or the request failed, or its answer is not whole.
    """
    asked = _located(_inside(_body(request), "messages"))
    return _pair([*asked, _answer(response)], turns)


def read_answered_messages(
    conversation: Found, response: Found, turns: Literal["refuse", "last"]
) -> dict[str, Found]:
    """The pair of a log that has the request's messages in a column of their own.

    Raises:
        BadRow: As ``read_log``.
    """
    messages = _located(conversation)
    if messages and isinstance(messages[-1][1], dict) and messages[-1][1].get("role") == ASSISTANT:
        return _pair(messages, turns)  # whole already; the response repeats it
    return _pair([*messages, _answer(response)], turns)


def refuse_failed(row: dict[str, Any]) -> None:
    """Refuse what an HTTP status says has failed, in a row or in a response.

    Raises:
        BadRow: The status is 400 or higher.
    """
    for name in STATUS:
        status = HTTP_STATUS.fullmatch(str(row.get(name, "")))
        if status and int(status[1]) >= FIRST_ERROR:
            raise BadRow(name, f"the request failed ({status[1]})")


def _pair(messages: list[Found], turns: Literal["refuse", "last"]) -> dict[str, Found]:
    roles = [_role(field, message) for field, message in messages]
    system = 1 if roles[:1] == ["system"] else 0
    for number, role in enumerate(roles[system:]):
        if role != ("user", "assistant")[number % 2]:
            raise BadRow(messages[system + number][0], _misplaced(role, number))
    field = messages[-1][0] if messages else "messages"
    if roles[-1:] != ["assistant"]:
        raise BadRow(field, "ends without an answer of the assistant")
    if len(roles) - system > 2 and turns == "refuse":
        raise BadRow(field, "several turns (coverage.turns: last would take the last one)")
    if messages[-1][1].get("weight") == 0:
        raise BadRow(field, "weight 0: an answer that is not to be learned")
    found = {"prompt": _content(messages[-2]), "response": _content(messages[-1])}
    return {"system": _content(messages[0]), **found} if system else found


def _role(field: str, message: Any) -> str:
    """The role of a message that can be part of a pair."""
    if not isinstance(message, dict):
        raise BadRow(field, "no object with role and content")
    role = message.get("role")
    if role in ("tool", "function") or message.get("tool_calls") or message.get("function_call"):
        raise BadRow(field, "tool calls are not supported")
    if role not in ROLES:
        raise BadRow(field, f"an unknown role ({quote(role, 40)})")
    if message.get("refusal"):
        raise BadRow(field, "the model refused to answer")
    return "system" if role in SYSTEM else str(role)


def _misplaced(role: str, number: int) -> str:
    if role == "system":
        return "a system message that is not the first message"
    if number == 0:
        return f"begins with the {role}"
    return f"two messages of the {role} in a row"


def _content(located: Found) -> Found:
    """The text of a message; parts of text become one."""
    field, message = located
    content = message.get("content")
    if not isinstance(content, list):
        return f"{field}.content", content
    for part in content:
        if not isinstance(part, dict) or not isinstance(part.get("text"), str):
            kind = part.get("type") if isinstance(part, dict) else part
            raise BadRow(f"{field}.content", f"a part that is no text ({quote(kind, 40)})")
    return f"{field}.content", "\n".join(part["text"] for part in content)


def _located(conversation: Found) -> list[Found]:
    field, value = conversation
    messages = _value(field, value)
    if not isinstance(messages, list):
        raise BadRow(field, "no list of messages")
    return [(f"{field}[{number}]", message) for number, message in enumerate(messages)]


def _body(located: Found) -> Found:
    """A request or response, without what a proxy or OpenAI's batch API wraps around it."""
    field, value = located
    value = _value(field, value)
    if not isinstance(value, dict):
        raise BadRow(field, "no JSON object")
    refuse_failed(value)
    if value.get("body") is not None:
        return _body((f"{field}.body", value["body"]))
    return field, value


def _answer(response: Found) -> Found:
    """The message of a whole response; some logs have its text alone."""
    field, value = response
    if _is_plain_text(value):
        return field, {"role": "assistant", "content": value}
    if isinstance(value, list) or (isinstance(value, str) and value.startswith("data:")):
        raise BadRow(field, "streamed chunks are not supported; log the whole response")
    field, body = _body(response)
    if str(body.get("object", "")).endswith(".chunk"):
        raise BadRow(field, "streamed chunks are not supported; log the whole response")
    if body.get("error"):
        raise BadRow(field, f"an error in place of an answer ({quote(body['error'], 200)})")
    choices = body.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise BadRow(field, "no choices in the response")
    finish = str(choices[0].get("finish_reason") or "").lower()
    if finish not in {*WHOLE, "tool_calls", "function_call"}:  # what calls tools is refused by name
        raise BadRow(field, f"not a whole answer (finish_reason {finish})")
    return f"{field}.choices[0].message", choices[0].get("message")


def _is_plain_text(value: Any) -> bool:
    """An answer may be JSON as well; a response of the API has one of these keys."""
    if not isinstance(value, str) or value.startswith("data:"):
        return False
    if not value.lstrip().startswith("{"):
        return True
    try:
        parsed = parse_json(value)
    except ValueError:
        return False  # more likely a response that the log has cut off
    return not parsed.keys() & {"choices", "error", "body", "object"}


def _inside(located: Found, name: str) -> Found:
    field, value = located
    value = _value(field, value)
    if not isinstance(value, dict) or value.get(name) is None:
        raise BadRow(field, f"no {name} in it")
    return f"{field}.{name}", value[name]


def _value(field: str, value: Any) -> Any:
    """A value that may be written as JSON text."""
    if not isinstance(value, str):
        return value
    try:
        return parse_json(value)
    except ValueError as error:
        raise BadRow(field, str(error)) from error
