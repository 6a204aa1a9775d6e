"""A user's mistakes in values that a pydantic model takes, as sentences."""

from collections.abc import Iterable
from difflib import get_close_matches
from inspect import isclass
from typing import Any, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError

from llamaduo.errors import InputError
from llamaduo.service_llm.privacy import quote

LONGEST = 60
"""Characters of a wrong value."""

Model = TypeVar("Model", bound=BaseModel)


def validated(model: type[Model], values: Any, where: str) -> Model:
    """A model of what a user has written.

    Args:
        where: Where the values stand, such as ``evaluation``.

    Raises:
        InputError: With one sentence per value that cannot be used.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise InputError("\n".join(sentences(model, error, where))) from None


def sentences(model: type[BaseModel], error: ValidationError, where: str) -> list[str]:
    """What is wrong, key by key; a value that no branch of a union takes is one sentence."""
    found: dict[str, dict[str, str]] = {}
    for each in error.errors(include_url=False):
        path, owner = _path(model, each["loc"])
        reason, value = _reason(each, owner)
        found.setdefault(".".join([where, *path]), {})[reason] = value
    return [
        f"{name}: {' or '.join(reasons)}{next(filter(None, reasons.values()), '')}"
        for name, reasons in found.items()
    ]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The nearest known name as a question, or all of them."""
    known = sorted(known)
    near = get_close_matches(name, known, n=1)
    return f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"


def _reason(error: Any, owner: type[BaseModel] | None) -> tuple[str, str]:
    """What is wrong, and the value that came, where that tells more."""
    if error["type"] == "extra_forbidden" and owner is not None:
        question = did_you_mean(str(error["loc"][-1]), owner.model_fields)
        return f"there is no such key; {question}", ""
    if error["type"] == "missing":
        return "is missing", ""
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "value_error":
        return str(message), ""
    return f"{message[0].lower()}{message[1:]}", f", it is {quote(error['input'], LONGEST)}"


def _path(
    model: type[BaseModel], location: tuple[int | str, ...]
) -> tuple[list[str], type[BaseModel] | None]:
    """The keys that a user has written, without pydantic's names of branches; who owns the last."""
    path: list[str] = []
    owner: type[BaseModel] | None = model
    holder, is_mapping = owner, False
    for place, part in enumerate(location):
        is_key = owner is not None and (part in owner.model_fields or place == len(location) - 1)
        if is_key and not is_mapping and owner is not None:
            path.append(str(part))
            holder = owner
            field = owner.model_fields.get(str(part))
            owner = _model_in(field.annotation) if field else None
            is_mapping = field is not None and _is_mapping(field.annotation)
        elif is_mapping or isinstance(part, int):
            path.append(str(part))
            is_mapping = False
    return path, holder


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isclass(annotation) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for arg in get_args(annotation) if (found := _model_in(arg))), None)


def _is_mapping(annotation: Any) -> bool:
    return get_origin(annotation) is dict or any(map(_is_mapping, get_args(annotation)))
