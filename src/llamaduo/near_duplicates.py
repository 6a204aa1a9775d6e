"""Near-duplicates by ROUGE-L on Unicode tokens, found in time linear in the number of texts.

ROUGE-L F1 is 2·LCS / (|a| + |b|), which is the normalised Indel similarity of the token lists
(Lin 2004; rapidfuzz). MinHash LSH over the sets of single tokens names the candidates (Broder 1997;
rensa); sets of two tokens in a row would miss one pair in four.
"""

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

import numpy as np
import pandas as pd
import regex
from rapidfuzz.distance import Indel
from rensa import RMinHash, RMinHashLSH

# Scripts without spaces between words: there a character is the unit.
UNSPACED = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]"
WORD = regex.compile(rf"{UNSPACED}|(?:(?!{UNSPACED})[\p{{L}}\p{{M}}\p{{N}}])+")
NO_SPACE = regex.compile(r"\S")

PERMUTATIONS = 128
BANDS = 32
"""Of 4 permutations each: two sets with half of their tokens in common meet with 87 %, with two
thirds with 99.9 %."""
SEED = 1

SHARED_RUN = 4
"""Words; the shortest piece of an instruction."""
FEWEST = 10
"""Prompts; fewer of them that begin alike may be near-duplicates as well."""
QUOTED_RUN = 6
"""Tokens."""
QUOTED_SHARE = 0.8

T = TypeVar("T")
Tokens = list[int]
"""One text as the ids of its words."""


class Tokenizer:
    """Turns texts into token ids, without the instructions that the prompts of a task share.

    Left in, a long instruction would make near-duplicates of all prompts. A run of words counts as
    part of one if more than half of a sample has it, so that neither an odd prompt among many nor a
    reworded word hides the rest.

    Args:
        samples: Prompts that may share an instruction: those of the task, those of a category.
    """

    def __init__(self, *samples: Sequence[str]) -> None:
        self._ids: dict[str, int] = {}
        self._shared: set[tuple[str, ...]] = set()
        for sample in samples:
            texts = {tuple(_words(text)) for text in sample}
            having = Counter(run for text in texts for run in set(_runs(text, SHARED_RUN)))
            least = max(len(texts) // 2 + 1, FEWEST)
            self._shared |= {run for run, count in having.items() if count >= least}

    @classmethod
    def of_task(cls, pairs: pd.DataFrame) -> "Tokenizer":
        """For pairs with the columns ``prompt`` and ``category``."""
        by_category = pairs.groupby("category")["prompt"]
        return cls(list(pairs["prompt"]), *(list(prompts) for _, prompts in by_category))

    def tokens(self, text: str) -> Tokens:
        """The token ids of one text; equal ones mean equal words only within one tokenizer."""
        words = _words(text)
        shared: set[int] = set()
        for place, run in enumerate(_runs(words, SHARED_RUN)):
            if run in self._shared:
                shared.update(range(place, place + SHARED_RUN))
        own = [word for place, word in enumerate(words) if place not in shared]
        return [self._ids.setdefault(word, len(self._ids)) for word in own or words]


class NearDuplicates:
    """Texts, numbered from 0 in the order in which they are added, and a search among them.

    Args:
        min_similarity: ROUGE-L F1, 0–1, from which two texts are near-duplicates.
        texts: What to add at the beginning.
    """

    def __init__(self, min_similarity: float, texts: Iterable[Tokens] = ()) -> None:
        self._min_similarity = min_similarity
        self._texts: list[Tokens] = []
        self._index = RMinHashLSH(min_similarity, PERMUTATIONS, BANDS)
        for text in texts:
            self.add(text)

    def add(self, text: Tokens) -> None:
        """Add one text."""
        self._index.insert(len(self._texts), _min_hash(text))
        self._texts.append(text)

    def of(self, text: Tokens) -> list[int]:
        """The numbers of the texts that are near-duplicates of this one, ascending."""
        candidates = sorted(self._index.query(_min_hash(text)))
        return [n for n in candidates if self._are_alike(text, self._texts[n])]

    def has(self, text: Tokens) -> bool:
        """Whether there is a near-duplicate of this text."""
        candidates = self._index.query(_min_hash(text))
        return any(self._are_alike(text, self._texts[n]) for n in candidates)

    def _are_alike(self, one: Tokens, other: Tokens) -> bool:
        cutoff = self._min_similarity
        return Indel.normalized_similarity(one, other, score_cutoff=cutoff) >= cutoff


class Quotations:
    """Texts, numbered from 0, and a search for those that another text quotes.

    A text is quoted where four in five of its tokens lie in runs of 6 that both have, whatever
    stands around them. (Tülu 3 is decontaminated so, by half of the tokens in runs of 8; Lambert et
    al. 2024. That would take two tasks with the same instruction for copies, and miss short
    prompts.)
    """

    def __init__(self, texts: Sequence[Tokens]) -> None:
        self._lengths = np.array([len(text) for text in texts], dtype=np.int64)
        self._starts = np.cumsum(self._lengths) - self._lengths
        self._places: dict[tuple[int, ...], array[int]] = {}  # as if all texts were one
        for start, text in zip(self._starts.tolist(), texts, strict=True):
            for place, run in enumerate(_runs(text, QUOTED_RUN), start):
                self._places.setdefault(run, array("q")).append(place)

    def of(self, text: Tokens) -> list[int]:
        """The numbers of the texts that this one quotes, ascending."""
        found = [self._places[run] for run in set(_runs(text, QUOTED_RUN)) if run in self._places]
        if not found:
            return []
        places = np.sort(np.concatenate(found))
        covered = np.minimum(np.diff(places, append=places[-1] + QUOTED_RUN), QUOTED_RUN)
        numbers = np.searchsorted(self._starts, places, side="right") - 1
        quoted, first = np.unique(numbers, return_index=True)
        enough = np.add.reduceat(covered, first) >= QUOTED_SHARE * self._lengths[quoted]
        return [int(number) for number in quoted[enough]]


class Reserved:
    """Prompts of which no copy may be trained on, and a search for copies.

    A copy is a near-duplicate of a reserved text, or quotes one (see ``Quotations``).
    """

    def __init__(self, min_similarity: float, texts: Iterable[Tokens]) -> None:
        reserved = list(texts)
        self._near = NearDuplicates(min_similarity, reserved)
        self._quotations = Quotations(reserved)

    def has_copy(self, text: Tokens) -> bool:
        """Whether a text is a copy of a reserved one."""
        return self._near.has(text) or bool(self._quotations.of(text))


def similarity(one: Tokens, other: Tokens) -> float:
    """ROUGE-L F1 of two texts, 0–1; two texts without a word are equal."""
    return Indel.normalized_similarity(one, other)


def signatures(texts: Iterable[Tokens]) -> np.ndarray:
    """MinHash signatures: a row of 128 hashes per text.

    The share of hashes that two rows have in common estimates the Jaccard similarity of the sets of
    words (Broder 1997), with a standard error of at most 4.4 points; no word can be read from them.
    """
    return np.array([_min_hash(text).digest() for text in texts], dtype=np.uint32)


def plain(text: str) -> str:
    """A text without what case and white space add to it."""
    return " ".join(text.casefold().split())


def _words(text: str) -> list[str]:
    """The words of a text, or its marks where it has none, such as emoji."""
    folded = text.casefold()
    words: list[str] = WORD.findall(folded) or NO_SPACE.findall(folded)
    return words


def _runs(items: Sequence[T], length: int) -> Iterator[tuple[T, ...]]:
    """All runs of so many items."""
    return zip(*(items[start:] for start in range(length)), strict=False)


def _min_hash(text: Tokens) -> RMinHash:
    minhash = RMinHash(PERMUTATIONS, SEED)
    minhash.update([str(token) for token in text])
    return minhash
