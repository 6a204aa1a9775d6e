"""Labels of responses: JSON fields with few values, or short responses."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import pandas as pd

from llamaduo.service_llm.text import read_json

MOST_VALUES = 20
"""Distinct values of a label."""
LEAST_SHARED = 0.9
"""Share of the responses whose value another one has too; an order number is no label."""
WHOLE = ""
"""In place of a field where the whole response is the label."""
OTHER_VALUE = "any other value"
"""Of a label: what the coverage set does not have."""
Labels = dict[str, list[str]]
"""Field of a JSON response, or ``WHOLE``: its values."""


def find_labels(responses: Sequence[str]) -> Labels:
    """The fields of JSON responses whose values are few and shared, or the responses themselves.

    Returns:
        Fields where most responses are objects, ``WHOLE`` where whole responses are labels, none
        for free text.
    """
    objects = [_object_in(response) or {} for response in responses]
    if 2 * sum(map(bool, objects)) <= len(responses):
        found = {WHOLE: _shared_values([response.strip() for response in responses])}
    else:
        fields = dict.fromkeys(field for each in objects for field in each)
        found = {field: _shared_values([each.get(field) for each in objects]) for field in fields}
    return {field: values for field, values in found.items() if values}


def read_labels(responses: Iterable[str], labels: Labels) -> pd.DataFrame:
    """One row per response, one text column per label; None where a response has none.

    A value that the labels lack is ``OTHER_VALUE``.
    """
    rows = []
    for response in responses:
        own = {WHOLE: response.strip()} if WHOLE in labels else _object_in(response) or {}
        read = {field: own.get(field) for field in labels}
        rows.append(
            [
                value if value is None or value in labels[field] else OTHER_VALUE
                for field, value in read.items()
            ]
        )
    return pd.DataFrame(rows, columns=list(labels), dtype=object)


def share_of_right_fields(response: str, reference: str) -> float | None:
    """How many of the reference's fields a response has right, 0–1; None unless both are JSON."""
    given, wanted = _object_in(response), _object_in(reference)
    if given is None or not wanted:
        return None
    return sum(given.get(field) == value for field, value in wanted.items()) / len(wanted)


def each_label(labels: pd.DataFrame) -> Iterator[tuple[str, pd.Series]]:
    """Name of a label with one of its values, and which rows have it."""
    for field in labels:
        for value in sorted(labels[field].dropna().unique()):
            yield f"{field or 'response'} = {value}", labels[field] == value


def _object_in(response: str) -> dict[str, str] | None:
    """The named fields of a JSON object as text."""
    fields = read_json(response, dict)
    if fields is None:
        return None
    return {
        name: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for name, value in fields.items()
        if name
    }


def _shared_values(values: Sequence[str | None]) -> list[str]:
    """The values, if they are few and nearly all shared; otherwise none."""
    counts = Counter(values)
    shared = sum(count for count in counts.values() if count > 1)
    if len(counts) > MOST_VALUES or shared < LEAST_SHARED * len(values):
        return []
    return sorted(value for value in counts if value is not None)
