"""How the reports write a figure; a dash for one that is not known."""

from typing import Any


def number(value: float | None, digits: int = 1) -> str:
    """Rounded."""
    return "–" if value is None else f"{value:.{digits}f}"


def signed(value: float | None) -> str:
    """With its sign."""
    return "–" if value is None else f"{value:+.1f}"


def probability(value: float | None) -> str:
    """A p-value, or the level that it is held against; with the digits to compare them by."""
    if value is None:
        return "–"
    return "< 0.0001" if value < 0.0001 else f"{value:.3g}"


def interval(ends: list[float | None]) -> str:
    """Its two ends."""
    low, high = ends
    return "–" if low is None else f"{low:.1f} to {high:.1f}"


def percentages(ends: list[float | None]) -> str:
    """The same for shares."""
    return interval([None if end is None else 100 * end for end in ends])


def plain(value: Any) -> str:
    """As short as it is exact."""
    return "–" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


FILTERS = {
    "number": number,
    "signed": signed,
    "probability": probability,
    "interval": interval,
    "percentages": percentages,
    "plain": plain,
}
"""By their names in the templates."""
