"""Near-duplicates by ROUGE-L on Unicode tokens, found in time linear in the number of texts.

ROUGE-L F1 is 2·LCS / (|a| + |b|), which is the normalised Indel similarity of the token lists
(Lin 2004; rapidfuzz). MinHash LSH over the sets of single tokens names the candidates (Broder 1997;
rensa); sets of two tokens in a row would miss one pair in four.
"""

from collections.abc import Iterable, Sequence
from itertools import takewhile

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

Tokens = list[int]
"""One text as the ids of its words."""


class Tokenizer:
    """Turns texts into token ids, without the words with which all texts of a task begin.

    A task's prompts share their instruction; left in, it would make near-duplicates of all of them.

    Args:
        sample: Prompts of the task; with fewer than two nothing counts as shared.
    """

    def __init__(self, sample: Sequence[str]) -> None:
        self._ids: dict[str, int] = {}
        lists = [_words(text) for text in sample]
        columns = zip(*lists, strict=False) if len(lists) > 1 else ()
        self._shared = [column[0] for column in takewhile(lambda c: len(set(c)) == 1, columns)]

    def tokens(self, text: str) -> Tokens:
        """The token ids of one text; equal ones mean equal words only within one tokenizer."""
        words = _words(text)
        if words[: len(self._shared)] == self._shared:
            words = words[len(self._shared) :]
        return [self._ids.setdefault(word, len(self._ids)) for word in words]


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


def similarity(one: Tokens, other: Tokens) -> float:
    """ROUGE-L F1 of two texts, 0–1; two texts without a word are equal."""
    return Indel.normalized_similarity(one, other)


def plain(text: str) -> str:
    """A text without what case and white space add to it."""
    return " ".join(text.casefold().split())


def _words(text: str) -> list[str]:
    """The words of a text, or its marks where it has none, such as emoji."""
    folded = text.casefold()
    words: list[str] = WORD.findall(folded) or NO_SPACE.findall(folded)
    return words


def _min_hash(text: Tokens) -> RMinHash:
    minhash = RMinHash(PERMUTATIONS, SEED)
    minhash.update([str(token) for token in text])
    return minhash
