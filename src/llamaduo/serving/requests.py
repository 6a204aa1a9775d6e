"""What a chat request may say; what else it says is refused by name."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from llamaduo.local_llm.chat import Message
from llamaduo.serving.errors import Refusal

CUSTOM = "refused"
"""The type of errors whose message is a whole sentence."""


def _only(*neutral: object) -> AfterValidator:
    """Takes the values with which a field changes nothing."""

    def checked(value: object) -> object:
        if value not in neutral:
            allowed = " or ".join(map(repr, neutral))
            raise PydanticCustomError(CUSTOM, "can only be {allowed} here", {"allowed": allowed})
        return value

    return AfterValidator(checked)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, given: Any) -> Any:
        """A field that is null is one that is not there; clients send many of them."""
        if not isinstance(given, dict):
            return given
        return {name: value for name, value in given.items() if value is not None}


class _TextPart(_Strict):
    type: Literal["text"]
    text: str


_TEXT_PARTS = TypeAdapter(list[_TextPart])


def _joined(content: Any) -> Any:
    """Text of a content that comes in parts."""
    if not isinstance(content, list):
        return content
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        if isinstance(kind, str) and kind != "text":
            raise PydanticCustomError(
                CUSTOM, "has a part of type {kind}; the student reads text only", {"kind": kind}
            )
    return "".join(part.text for part in _TEXT_PARTS.validate_python(content))


class ChatMessage(_Strict):
    """A message; what OpenAI's clients repeat of an answer beside its text may be there, empty."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[str, BeforeValidator(_joined)]
    name: str | None = None
    """Shown to no student: none was trained on it."""
    annotations: Annotated[list[Any], _only([])] | None = None
    tool_calls: Annotated[list[Any], _only([])] | None = None

    def as_trained(self) -> Message:
        """As the chat template knows it."""
        role = "system" if self.role == "developer" else self.role
        return {"role": role, "content": self.content}


class _StreamOptions(_Strict):
    include_usage: bool = False
    include_obfuscation: bool = False


class _Text(_Strict):
    type: Literal["text"]


class _AnyObject(_Strict):
    type: Literal["json_object"]


class _NamedSchema(_Strict):
    name: str
    json_schema: dict[str, Any] = Field(alias="schema")
    description: str | None = None
    strict: bool | None = None


class _Schema(_Strict):
    type: Literal["json_schema"]
    json_schema: _NamedSchema


StopString = Annotated[str, Field(min_length=1)]


def _as_list(stop: Any) -> Any:
    return [stop] if isinstance(stop, str) else stop


class ChatRequest(_Strict):
    """The body of ``POST /v1/chat/completions``."""

    messages: list[ChatMessage] = Field(min_length=1)
    model: str | None = None
    """Any: applications change by their base URL alone."""
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    stop: Annotated[list[StopString], BeforeValidator(_as_list), Field(max_length=4)] = []
    seed: int | None = None
    stream: bool = False
    stream_options: _StreamOptions = _StreamOptions()
    response_format: Annotated[_Text | _AnyObject | _Schema, Field(discriminator="type")] = _Text(
        type="text"
    )

    n: Annotated[int, _only(1)] = 1
    logprobs: Annotated[bool, _only(False)] = False
    presence_penalty: Annotated[float, _only(0)] = 0.0
    frequency_penalty: Annotated[float, _only(0)] = 0.0

    top_logprobs: Annotated[int, _only(0)] = 0
    logit_bias: Annotated[dict[str, float], _only({})] = {}
    modalities: Annotated[list[str], _only(["text"])] = ["text"]

    user: str | None = None
    metadata: dict[str, str] | None = None
    store: bool | None = None
    service_tier: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    reasoning_effort: str | None = None
    verbosity: str | None = None
    parallel_tool_calls: bool | None = None

    @property
    def wanted_tokens(self) -> int | None:
        """The most that the answer may have; None leaves it to the student."""
        return self.max_completion_tokens or self.max_tokens

    @property
    def json_schema(self) -> dict[str, Any] | None:
        """That the answer must follow."""
        wanted = self.response_format
        if isinstance(wanted, _Schema):
            return wanted.json_schema.json_schema
        return {"type": "object"} if isinstance(wanted, _AnyObject) else None


def parse(body: bytes) -> ChatRequest:
    """Read a request.

    Raises:
        Refusal: It says something else than this server takes; told is the first such thing.
    """
    try:
        return ChatRequest.model_validate_json(body)
    except ValidationError as error:
        raise _refused(error.errors(include_url=False, include_input=False)[0]) from None


def _refused(error: ErrorDetails) -> Refusal:
    param = _path(error["loc"]) or None
    what = error["msg"]
    match error["type"]:
        case "json_invalid":
            return Refusal(400, f"The body is not JSON: {what.partition(': ')[2]}.", "invalid_json")
        case "extra_forbidden":
            return Refusal(
                400, f"This server does not know '{param}'.", "unsupported_parameter", param=param
            )
        case "union_tag_invalid" | "union_tag_not_found":
            sentence = f"'{param}' needs a type: 'text', 'json_object' or 'json_schema'."
            return Refusal(400, sentence, "invalid_value", param=param)
        case "missing":
            return Refusal(400, f"'{param}' is missing.", "missing_required_parameter", param=param)
    if param is None:
        return Refusal(400, "The body must be a JSON object.", "invalid_type")
    sentence = f"'{param}' {what.removeprefix('Input ')}."
    return Refusal(400, sentence, "invalid_value", param=param)


def _path(location: tuple[int | str, ...]) -> str:
    """``messages[0].content``; pydantic also names the branch of a union that it tried."""
    steps = list(location)
    if steps[:1] == ["response_format"]:
        del steps[1:2]
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps)[1:]
