"""Near-duplicates by ROUGE-L on Unicode tokens.

ROUGE-L F1 is 2·LCS / (|a| + |b|), which is the normalised Indel similarity of the token lists
(Lin 2004; rapidfuzz).
"""

from collections.abc import Sequence
from itertools import takewhile

import numpy as np
import regex
from rapidfuzz import process
from rapidfuzz.distance import Indel

# Scripts without spaces between words: there a character is the unit.
UNSPACED = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]"
WORD = regex.compile(rf"{UNSPACED}|(?:(?!{UNSPACED})[\p{{L}}\p{{M}}\p{{N}}])+")


class Tokens:
    """Texts as lists of token ids, without the words with which all texts of a task begin.

    A task's prompts share their instruction; left in, it would make near-duplicates of all of them.

    Args:
        sample: Prompts of the task; with fewer than two nothing counts as shared.
    """

    def __init__(self, sample: Sequence[str]) -> None:
        self._ids: dict[str, int] = {}
        lists = [WORD.findall(text.casefold()) for text in sample]
        columns = zip(*lists, strict=False) if len(lists) > 1 else ()
        self._shared = [column[0] for column in takewhile(lambda c: len(set(c)) == 1, columns)]

    def of(self, text: str) -> list[int]:
        """The token ids of one text."""
        words = WORD.findall(text.casefold())
        if words[: len(self._shared)] == self._shared:
            words = words[len(self._shared) :]
        return [self._ids.setdefault(word, len(self._ids)) for word in words]


def similarities(texts: Sequence[list[int]], others: Sequence[list[int]]) -> np.ndarray:
    """ROUGE-L F1 of each text with each other one, 0–1, of shape (texts, others)."""
    return process.cdist(
        texts, others, scorer=Indel.normalized_similarity, dtype=np.float32, workers=-1
    )
