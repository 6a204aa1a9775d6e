from itertools import product

import numpy as np
import pytest
from rapidfuzz.distance import LCSseq

from llamaduo.near_duplicates import NearDuplicates, Tokenizer, similarity


def test_the_similarity_is_rouge_l():
    rng = np.random.default_rng(3)
    texts = [" ".join(rng.choice(list("abcdefgh"), size=rng.integers(3, 12))) for _ in range(20)]
    tokenizer = Tokenizer(texts)
    lists = [tokenizer.tokens(text) for text in texts]

    for a, b in product(lists, lists):
        f1 = 2 * LCSseq.similarity(a, b) / (len(a) + len(b))
        assert similarity(a, b) == pytest.approx(f1)


def test_all_near_duplicates_of_a_text_are_found_in_the_order_of_adding():
    texts = ["one two three four", "five six seven eight", "one two three", "two three four"]
    tokenizer = Tokenizer([])
    known = NearDuplicates(0.7, map(tokenizer.tokens, texts))

    assert known.of(tokenizer.tokens("one, two, three, four!")) == [0, 2, 3]
    assert known.of(tokenizer.tokens("nine ten")) == []
