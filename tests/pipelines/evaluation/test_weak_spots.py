import pandas as pd
import pytest

from llamaduo.pipelines.evaluation.weak_spots import find_weak_spots
from llamaduo.schemas import WeakSpots


def pairs(**prompts):
    return pd.DataFrame(
        {
            "id": list(prompts),
            "category": [name[0] for name in prompts],
            "prompt": list(prompts.values()),
        }
    )


TRAIN = pairs(
    a1="the printer shows error seven",
    a2="the printer is out of paper",
    a3="the screen stays black",
    a4="the keyboard types nothing",
    b1="the printer shows error eight",
)
TEST = pairs(a7="the printer shows error nine", a8="the keyboard types twice", b9="my refund")


def spots(*precision):
    scores = pd.DataFrame({"id": TEST["id"], "precision": precision})
    return WeakSpots.validate(find_weak_spots(scores, TEST, TRAIN))


def test_the_points_that_a_prompt_missed_go_to_its_nearest_neighbours_of_its_category():
    found = spots(40.0, 100.0, 100.0)

    assert set(found["seed_id"]) == {"a1", "a2", "a3"}
    assert found["weight"].sum() == pytest.approx(1)
    assert found["category_weight"].tolist() == [pytest.approx(0.3)] * 3


def test_a_category_with_few_pairs_borrows_neighbours():
    found = spots(100.0, 100.0, 0.0)

    assert len(found) == 3
    assert "b1" in set(found["seed_id"])
    assert dict(zip(found["seed_id"], found["category_weight"], strict=True))["b1"] == 1


def test_a_prompt_without_a_score_weighs_nothing():
    assert spots(None, 100.0, 100.0).empty
    assert spots(None, 0.0, 100.0)["category_weight"].iloc[0] == 1
    assert set(spots(None, 50.0, 100.0)["seed_id"]) != set(spots(50.0, None, 100.0)["seed_id"])


def test_no_text_of_the_test_set_is_in_it():
    text = spots(0.0, 0.0, 0.0).to_json()

    assert not any(word in text for prompt in TEST["prompt"] for word in prompt.split())
    assert not any(test_id in text for test_id in TEST["id"])
