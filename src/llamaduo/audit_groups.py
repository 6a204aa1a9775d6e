"""By which words a fairness audit tells groups apart, and what of them a text holds."""

import re
from collections.abc import Iterable, Iterator
from functools import cached_property

from pydantic import Field, model_validator

from llamaduo.parameters import Parameters


class NameGroup(Parameters):
    """First names that stand for the same traits."""

    traits: dict[str, str] = Field(min_length=1)
    """Dimension: group, such as gender: female."""
    first_names: list[str] = Field(min_length=2)


class ToxicWords(Parameters):
    """The words of glin-profanity, and corrections."""

    language: str
    add: list[str]
    ignore: list[str]


class AuditGroups(Parameters):
    """The groups of an audit; ``conf/base/fairness/english.yml`` describes each part."""

    names: list[NameGroup]
    signature: str = Field(pattern=r"\{name\}")
    rewrites: dict[str, list[tuple[str, str]]]
    words: dict[str, list[str]]
    stereotypes: dict[str, list[str]]
    hedges: list[str]
    toxic: ToxicWords

    @model_validator(mode="after")
    def are_told_apart(self) -> "AuditGroups":
        """Groups of names have the same dimensions and no name or group; patterns can be read."""
        if len({frozenset(group.traits) for group in self.names}) > 1:
            raise ValueError("names: each group needs the same traits")
        if len({frozenset(group.traits.items()) for group in self.names}) < len(self.names):
            raise ValueError("names: two groups have equal traits, put their names into one")
        names = [name.lower() for group in self.names for name in group.first_names]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"names: {', '.join(twice)} in more than one place")
        rules = [rule for rules in self.rewrites.values() for rule in rules]
        for pattern, replacement in [*((hedge, "") for hedge in self.hedges), *rules]:
            try:
                re.sub(pattern, replacement, "")
            except (re.error, IndexError) as error:
                raise ValueError(
                    f"{pattern!r} is no regular expression, or {replacement!r} no replacement for "
                    f"it: {error}"
                ) from error
        return self

    @property
    def dimensions(self) -> dict[str, list[str]]:
        """Dimension: its groups, in the order of the file."""
        return {
            dimension: list(dict.fromkeys(group.traits[dimension] for group in self.names))
            for dimension in (self.names[0].traits if self.names else ())
        }

    @cached_property
    def _owners(self) -> list[NameGroup]:
        """The group of each name, in the order of the alternatives of ``_any_name``."""
        return [group for group in self.names for _ in group.first_names]

    @cached_property
    def _any_name(self) -> re.Pattern[str]:
        return _any_of(name for group in self.names for name in group.first_names)

    def _names_in(self, text: str) -> Iterator[tuple[str, NameGroup]]:
        """By which alternative has matched: no folding of case is that of ``re.IGNORECASE``."""
        for found in self._any_name.finditer(text):
            yield found[0], self._owners[(found.lastindex or 0) - 1]

    def first_name_in(self, text: str) -> tuple[str, NameGroup] | None:
        """The first known name of a text, as it stands there, and its group."""
        return next(self._names_in(text), None)

    def only_group_in(self, text: str, dimension: str) -> str | None:
        """The group that the names of a text are of; None without one, and with several."""
        groups = {group.traits[dimension] for _, group in self._names_in(text)}
        return groups.pop() if len(groups) == 1 else None

    def rewrite(self, text: str, name: str) -> str:
        """The text by the rules of one rewriting."""
        for pattern, replacement in self.rewrites[name]:
            text = _substitute(re.compile(pattern, re.IGNORECASE), replacement, text)
        return text

    def are_stereotyped(self, texts: Iterable[str]) -> list[bool]:
        """Whether each text names a group, and something that a stereotype ties to it."""
        pairs = [
            (_any_of(self._words_of(group)), _any_of(tied))
            for group, tied in self.stereotypes.items()
        ]
        return [
            any(one.search(text) and other.search(text) for one, other in pairs) for text in texts
        ]

    def _words_of(self, group: str) -> list[str]:
        names = [
            n for each in self.names if group in each.traits.values() for n in each.first_names
        ]
        return [*self.words.get(group, ()), *names]

    def have_hedges(self, texts: Iterable[str]) -> list[bool]:
        """Whether each text hedges."""
        hedges = [re.compile(pattern, re.IGNORECASE) for pattern in self.hedges]
        return [any(hedge.search(text) for hedge in hedges) for text in texts]

    def are_toxic(self, texts: Iterable[str]) -> list[bool]:
        """Whether each text holds a toxic word; a tone without one is not found."""
        from glin_profanity import Filter

        words = Filter(
            {
                "languages": [self.toxic.language],
                "custom_words": self.toxic.add,
                "ignore_words": self.toxic.ignore,
            }
        )
        return [words.is_profane(text) for text in texts]


def swap_word(text: str, old: str, new: str) -> str:
    """Replace a word wherever it stands, in whatever case, and keep that case."""
    return _substitute(_any_of([old]), new, text)


def _substitute(pattern: re.Pattern[str], replacement: str, text: str) -> str:
    """``re.sub`` that keeps the case: UPPER, lower, or a capital at the beginning."""

    def in_its_case(match: re.Match[str]) -> str:
        old, new = match[0], match.expand(replacement)
        if old.isupper():
            return new.upper()
        return new.lower() if old.islower() else new[:1].upper() + new[1:]

    return pattern.sub(in_its_case, text)


def _any_of(words: Iterable[str]) -> re.Pattern[str]:
    """Any of the words; which one, says the number of the last group that has matched."""
    alternatives = "|".join(f"({re.escape(word)})" for word in words) or r"(?!)"
    return re.compile(rf"\b(?:{alternatives})\b", re.IGNORECASE)
