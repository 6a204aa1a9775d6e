import pandas as pd
import pytest

from llamaduo.errors import InputError
from llamaduo.pipelines.data_synthesis.seeding import choose_seeds, count_yields, mix
from llamaduo.schemas import ReadyPairs, Seeds, SynthesisReplies, WeakSpots, Yields
from llamaduo.service_llm.failures import Failure
from tests.pipelines.data_synthesis.tables import (
    BY_PREFERENCE,
    NO_READY_PAIRS,
    PROMPTS,
    coverage,
    parameters,
    parsed,
    seeds,
    so_far,
)


def test_the_first_iteration_asks_for_nothing():
    assert seeds(1).empty
    assert list(seeds(1).columns) == list(Seeds.empty().columns)


def test_requests_share_the_pairs_of_an_iteration_out():
    assert list(seeds(2)["pairs"]) == [8, 8, 4]


def test_a_list_gives_each_later_iteration_its_own_number_and_the_last_to_all_that_follow():
    counts = [seeds(n, pairs_per_iteration=[8, 24])["pairs"].sum() for n in (1, 2, 3, 4)]

    assert counts == [0, 8, 24, 24]


def test_every_pair_is_shown_before_any_is_shown_again():
    shown = [list(seeds(n)["seed_id"]) for n in (2, 3, 4, 5)]

    assert len({seed for each in shown for seed in each}) == 12
    assert list(seeds(6)["seed_id"]) == shown[0]


def test_an_iteration_shows_no_pair_twice_and_all_categories():
    chosen = seeds(2, count=60, pairs_per_iteration=240)

    assert chosen["seed_id"].is_unique
    categories = coverage(60).set_index("id")["category"][chosen["seed_id"]]
    assert list(categories.value_counts()) == [10, 10, 10]


def test_a_changed_number_of_pairs_goes_on_where_the_iteration_before_stopped():
    before, after = seeds(2), seeds(3, pairs_per_iteration=40)

    assert list(after["request"]) == [4, 5, 6, 7, 8]
    assert not set(before["seed_id"]) & set(after["seed_id"])


def test_requests_are_numbered_over_the_whole_loop():
    assert list(seeds(2)["request"]) == [1, 2, 3]
    assert list(seeds(3)["request"]) == [4, 5, 6]


def test_ready_pairs_leave_nothing_to_ask():
    ready = ReadyPairs.validate(pd.DataFrame({"prompt": ["p"], "response": ["r"]}))

    assert choose_seeds(
        coverage(9), ready, PROMPTS, so_far(2), None, None, None, None, parameters()
    ).empty


def test_an_iteration_by_preference_asks_for_nothing():
    assert seeds(3, verdict=BY_PREFERENCE).empty
    assert len(seeds(3, verdict={"next_tuning": "sft"})) == 3


def test_what_is_left_out_of_the_coverage_set_is_shown_to_nobody():
    pairs = coverage(12)
    pairs.loc[::2, "dropped"] = "near_copy_of_test"

    chosen = choose_seeds(
        pairs, NO_READY_PAIRS, PROMPTS, so_far(2), None, None, None, None, parameters()
    )

    assert set(chosen["seed_id"]) <= {f"train-{n}" for n in range(1, 12, 2)}


def test_a_coverage_pair_that_is_not_trained_on_is_shown_to_nobody():
    trained_on = coverage(12).query("id != 'train-3'")

    chosen = choose_seeds(
        coverage(12),
        NO_READY_PAIRS,
        PROMPTS,
        so_far(2),
        trained_on,
        None,
        None,
        None,
        parameters(pairs_per_iteration=8 * 24),
    )

    assert set(chosen["seed_id"]) == set(trained_on["id"])


def test_a_coverage_set_of_which_nothing_was_trained_on_is_refused():
    other = coverage(12).assign(id=[f"other-{n}" for n in range(12)])

    with pytest.raises(InputError, match=r"none of the 12 pairs .* begin a new loop"):
        choose_seeds(
            other, NO_READY_PAIRS, PROMPTS, so_far(2), coverage(12), None, None, None, parameters()
        )


def test_strategies_are_mixed_by_their_shares_from_the_first_request_on():
    assert mix({"a": 1}, 3) == ["a", "a", "a"]
    assert mix({"a": 3, "b": 1}, 8).count("b") == 2
    assert all(mix({"a": 0.5, "b": 0.5}, 10)[n : n + 2].count("a") == 1 for n in range(0, 10, 2))


def test_requests_go_on_with_the_mix_where_the_iteration_before_stopped():
    shares = {"self_instruct": 2, "harder": 1}

    chosen = [*seeds(2, strategies=shares)["strategy"], *seeds(3, strategies=shares)["strategy"]]

    assert chosen == mix(shares, 6)


def test_a_strategy_without_a_prompt_text_is_named_before_anything_is_asked():
    with pytest.raises(InputError, match=r"names hardest, but .* there are harder, self_instruct"):
        seeds(1, strategies={"hardest": 1})


def weak(**weights):
    """Weak spots by the number of the coverage pair."""
    rows = [
        {"seed_id": f"train-{n[1:]}", "category": "a", "category_weight": 1.0, "weight": weight}
        for n, weight in weights.items()
    ]
    return WeakSpots.validate(pd.DataFrame(rows))


def yields(**counts):
    """Of asked and kept pairs, by seed number or strategy."""
    rows = [
        {
            "what": "strategy" if name in PROMPTS else "seed",
            "name": name if name in PROMPTS else f"train-{name[1:]}",
            "asked": asked,
            "kept": kept,
        }
        for name, (asked, kept) in counts.items()
    ]
    return Yields.validate(pd.DataFrame(rows))


def test_a_share_of_the_requests_is_aimed_at_what_was_weak():
    spots = weak(_3=0.75, _7=0.25)

    chosen = seeds(3, count=60, weak_spots=spots, pairs_per_iteration=320, aimed_share=0.4)

    aimed = chosen[chosen["turn"] == 0]
    assert len(chosen) == 40
    assert aimed["seed_id"].value_counts().to_dict() == {"train-3": 12, "train-7": 4}
    Seeds.validate(chosen)


def test_the_others_go_on_with_the_walk_as_if_nobody_had_aimed():
    aimed = seeds(3, count=60, weak_spots=weak(_3=1.0), pairs_per_iteration=320, aimed_share=0.5)
    walk = seeds(3, count=60, pairs_per_iteration=160)

    walked = aimed[aimed["turn"] > 0]
    assert list(walked["seed_id"]) == list(walk["seed_id"])
    assert list(walked["turn"]) == list(walk["turn"])


def test_an_iteration_walks_on_from_where_the_one_before_stopped_however_much_it_aimed():
    first = seeds(2, count=60, weak_spots=weak(_3=1.0), pairs_per_iteration=320)
    report = {**so_far(3), "requests_so_far": 40, "walked_so_far": int(first["turn"].max())}

    second = seeds(3, count=60, weak_spots=weak(_3=1.0), report=report, pairs_per_iteration=320)

    turns = [*first.query("turn > 0")["turn"], *second.query("turn > 0")["turn"]]
    assert turns == list(range(1, 41))
    assert list(second["request"]) == list(range(41, 81))


def test_aimed_requests_take_part_in_every_strategy():
    shares = {"self_instruct": 1, "harder": 1}

    chosen = seeds(2, count=60, weak_spots=weak(_3=1.0), pairs_per_iteration=320, strategies=shares)

    aimed = chosen.loc[chosen["turn"] == 0, "strategy"].value_counts()
    assert min(aimed["self_instruct"], aimed["harder"]) >= 5


@pytest.mark.parametrize("spots", [None, WeakSpots.empty(), weak(_99=1.0)])
def test_without_a_known_weak_spot_nothing_is_aimed(spots):
    assert (seeds(2, weak_spots=spots, aimed_share=1.0)["turn"] > 0).all()


def test_a_weak_pair_that_is_left_out_is_shown_to_nobody():
    pairs = coverage(12)
    pairs.loc[3, "dropped"] = "too_long"

    chosen = choose_seeds(
        pairs,
        NO_READY_PAIRS,
        PROMPTS,
        so_far(2),
        None,
        weak(_3=0.9, _4=0.1),
        None,
        None,
        parameters(),
    )

    assert "train-3" not in set(chosen["seed_id"])
    assert (chosen["seed_id"] == "train-4").any()


def test_equal_inputs_choose_equal_seeds_and_another_iteration_other_ones():
    spots = weak(**{f"_{n}": 1 / 50 for n in range(50)})
    chosen = [
        seeds(n, count=60, weak_spots=spots, pairs_per_iteration=80, aimed_share=1.0)
        for n in (2, 2, 3)
    ]

    pd.testing.assert_frame_equal(chosen[0], chosen[1])
    assert list(chosen[0]["seed_id"]) != list(chosen[2]["seed_id"])


def shown(chosen):
    return chosen["seed_id"].value_counts()


def test_a_seed_whose_pairs_are_mostly_dropped_gets_less():
    fair = {f"_{n}": (80, 80) for n in range(1, 12)}
    known = yields(_0=(80, 8), **fair)
    report = {**so_far(2), "walked_so_far": 12}

    chosen = seeds(2, yields=known, report=report, pairs_per_iteration=960)

    assert shown(chosen)["train-0"] <= 3
    assert min(shown(chosen).drop("train-0")) >= 10


def test_who_was_aimed_at_before_its_first_turn_keeps_it_however_little_it_yielded():
    fair = {f"_{n}": (80, 80) for n in range(1, 12)}

    chosen = seeds(2, yields=yields(_0=(8, 0), **fair), pairs_per_iteration=96)

    assert len(set(chosen["seed_id"])) == 12


def test_a_weak_spot_whose_pairs_are_mostly_dropped_gets_less_of_the_aim():
    known = yields(_0=(800, 80), _1=(800, 800))

    chosen = seeds(
        2,
        weak_spots=weak(_0=0.5, _1=0.5),
        yields=known,
        pairs_per_iteration=800,
        aimed_share=1.0,
    )

    assert 10 <= shown(chosen)["train-0"] <= 20
    assert shown(chosen).sum() == 100


def test_a_strategy_whose_pairs_are_mostly_dropped_gets_less():
    known = yields(self_instruct=(400, 400), harder=(400, 40))

    chosen = seeds(
        2,
        count=60,
        yields=known,
        pairs_per_iteration=800,
        strategies={"self_instruct": 1, "harder": 1},
    )

    assert 10 <= (chosen["strategy"] == "harder").sum() <= 20


def test_what_yields_nothing_is_still_tried_now_and_then():
    known = yields(self_instruct=(4000, 4000), harder=(4000, 0))

    chosen = seeds(
        2, yields=known, pairs_per_iteration=800, strategies={"self_instruct": 1, "harder": 1}
    )

    assert 5 <= (chosen["strategy"] == "harder").sum() <= 10


def test_where_all_are_dropped_alike_nobody_gets_less():
    known = yields(**{f"_{n}": (8, 2) for n in range(12)})

    chosen = seeds(2, yields=known, report={**so_far(2), "walked_so_far": 12})

    assert list(chosen["turn"]) == [13, 14, 15]


def replies_to(chosen, **columns):
    rows = chosen[["request", "strategy", "seed_id"]].assign(
        attempt=1,
        prompt_version="self_instruct-1a2b3c4d",
        teacher="m",
        text="…",
        failure=None,
        detail="",
        model="m",
        prompt_tokens=1,
        completion_tokens=1,
        answered_at=1.0,
        replaced=[[] for _ in chosen["request"]],
    )
    return SynthesisReplies.validate(rows.assign(**columns))


def kept(chosen, counts, dropped=""):
    """So many pairs of each request."""
    requests = [r for r, n in zip(chosen["request"], counts, strict=True) for _ in range(n)]
    return parsed(*map(str, range(len(requests))), request=requests).assign(dropped=dropped)


def by_name(table):
    return {row["name"]: (row["asked"], row["kept"]) for row in table.to_dict("records")}


def test_yields_are_counted_over_the_loop():
    chosen = seeds(2)
    first = count_yields(chosen, replies_to(chosen), kept(chosen, [8, 2, 4]), None)
    again = count_yields(chosen, replies_to(chosen), kept(chosen, [8, 0, 1]), first)

    one, two, three = chosen["seed_id"]
    assert by_name(Yields.validate(first)) == {
        one: (8, 8),
        two: (8, 2),
        three: (4, 4),
        "self_instruct": (20, 14),
    }
    assert by_name(Yields.validate(again))[two] == (16, 2)
    assert by_name(again)["self_instruct"] == (40, 23)


def test_a_dropped_pair_is_none_that_was_yielded():
    chosen = seeds(2)

    counted = count_yields(
        chosen, replies_to(chosen), kept(chosen, [8, 8, 4], "near_duplicate"), None
    )

    assert counted["kept"].sum() == 0


def test_more_than_was_asked_for_is_no_better_than_all_of_it():
    chosen = seeds(2)

    counted = count_yields(chosen, replies_to(chosen), kept(chosen, [8, 30, 4]), None)

    assert by_name(counted)["self_instruct"] == (20, 20)


def test_a_seed_does_not_answer_for_an_outage_while_it_was_asked_again():
    chosen = seeds(2)
    again = replies_to(chosen.iloc[[1]], attempt=2, text=None, failure=str(Failure.GAVE_UP))
    replies = pd.concat([replies_to(chosen), again])

    counted = count_yields(chosen, replies, kept(chosen, [8, 5, 4]), None)

    assert by_name(counted)["self_instruct"] == (12, 12)


@pytest.mark.parametrize(
    ("failure", "asked"),
    [(Failure.REFUSED, 20), (Failure.GAVE_UP, 0), (Failure.OVER_BUDGET, 0)],
)
def test_a_seed_answers_for_a_refusal_but_for_no_outage(failure, asked):
    chosen = seeds(2)
    failed = replies_to(chosen, text=None, failure=str(failure))

    counted = count_yields(chosen, failed, kept(chosen, [0, 0, 0]), None)

    assert Yields.validate(counted).query("what == 'strategy'")["asked"].sum() == asked


def test_nothing_asked_yields_nothing():
    counted = count_yields(seeds(1), SynthesisReplies.empty(), kept(seeds(1), []), None)

    assert Yields.validate(counted).empty
