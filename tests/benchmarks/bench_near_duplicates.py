"""De-duplication and decontamination of 256,000 records, in time linear in their number.

pytest tests/benchmarks/bench_near_duplicates.py --override-ini python_files='bench_*.py' -s
"""

import random
import resource
import time
from itertools import combinations

from rouge_score.rouge_scorer import RougeScorer

from llamaduo.near_duplicates import NearDuplicates, Reserved, Tokenizer, similarity
from llamaduo.stand_in.task import CATEGORIES, make_ticket

RECORDS = 256_000
SIMILARITY = 0.7
PAIRWISE = 200
"""Documents that rouge-score compares each with each."""


def records(count, rng):
    """Tickets of the demo's grammar, each resampled about thirteen times with up to 8 edits."""
    tickets = [make_ticket(rng, CATEGORIES[n % len(CATEGORIES)]) for n in range(20_000)]
    prompts = [ticket.pair()["prompt"].split(" ") for ticket in tickets]
    words = [word for prompt in prompts[:500] for word in prompt]

    def edited():
        text = list(rng.choice(prompts))
        for _ in range(rng.randrange(9)):
            place = rng.randrange(6, len(text))  # the instruction stays
            change = rng.randrange(3)
            text[place : place + (change != 1)] = [rng.choice(words)] * (change != 0)
            if len(text) < 8:
                break
        return " ".join(text)

    return [edited() for _ in range(count)], [" ".join(prompt) for prompt in prompts[:240]]


def dedupe(texts, reserved, tokenizer):
    """Kept positions, and seconds per 1,000 records of each eighth of the data."""
    tests = Reserved(SIMILARITY, map(tokenizer.tokens, reserved))
    kept, positions, seconds = NearDuplicates(SIMILARITY), [], []
    piece = len(texts) // 8
    for start in range(0, len(texts), piece):
        began = time.perf_counter()
        for position in range(start, min(start + piece, len(texts))):
            tokens = tokenizer.tokens(texts[position])
            if not tests.has_copy(tokens) and not kept.has(tokens):
                kept.add(tokens)
                positions.append(position)
        seconds.append((time.perf_counter() - began) * 1000 / piece)
    return positions, seconds


def exact_greedy(texts, tokenizer):
    kept, positions = [], []
    for position, text in enumerate(texts):
        tokens = tokenizer.tokens(text)
        if all(similarity(tokens, other) < SIMILARITY for other in kept):
            kept.append(tokens)
            positions.append(position)
    return positions


def test_256000_records_in_a_minute_and_2_gb_at_a_flat_rate():
    texts, reserved = records(RECORDS, random.Random(5))
    tokenizer = Tokenizer(reserved)
    before = peak_mb()

    began = time.perf_counter()
    positions, per_1000 = dedupe(texts, reserved, tokenizer)
    took = time.perf_counter() - began

    print(
        f"\n{RECORDS} records: {took:.1f} s, {peak_mb():.0f} MB at the peak ({before:.0f} before), "
        f"{len(positions)} kept; ms per 1,000: {', '.join(f'{1000 * s:.0f}' for s in per_1000)}"
    )
    assert took <= 60
    assert peak_mb() <= 2000
    assert per_1000[-1] <= 1.6 * per_1000[0]  # each has more near neighbours by then


def test_the_kept_set_is_that_of_exact_greedy_rouge_l():
    texts, _ = records(5_000, random.Random(6))
    tokenizer = Tokenizer(texts)

    began = time.perf_counter()
    ours = set(dedupe(texts, [], tokenizer)[0])
    took = time.perf_counter() - began
    began = time.perf_counter()
    exact = set(exact_greedy(texts, tokenizer))
    exactly = time.perf_counter() - began

    same = len(ours & exact) / len(ours | exact)
    print(
        f"\n5,000 records: {len(ours)} kept, exact greedy {len(exact)}, {100 * same:.2f} % the "
        f"same; {took:.2f} s against {exactly:.1f} s"
    )
    assert same >= 0.99


def test_pairwise_rouge_score_beside_it():
    texts, _ = records(PAIRWISE, random.Random(7))
    scorer = RougeScorer(["rougeL"])

    began = time.perf_counter()
    scored = {
        pair: scorer.score(texts[pair[0]], texts[pair[1]])["rougeL"].fmeasure
        for pair in combinations(range(PAIRWISE), 2)
    }
    pairwise = time.perf_counter() - began
    began = time.perf_counter()
    dedupe(texts, [], Tokenizer())
    ours = time.perf_counter() - began

    print(
        f"\n{PAIRWISE} records: {pairwise:.1f} s pairwise rouge-score ({len(scored)} pairs), "
        f"{1000 * ours:.0f} ms ours, {pairwise / ours:.0f} times"
    )
    assert pairwise / ours > 100


def peak_mb():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
