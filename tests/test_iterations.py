import pytest

from llamaduo.errors import InputError
from llamaduo.iterations import chosen_iteration
from llamaduo.ledger import Ledger


@pytest.fixture
def ledger(tmp_path):
    """The loop b went on after a had ended, a was resumed after that."""
    ledger = Ledger(tmp_path)
    for loop in ("a", "b"):
        ledger.append(f"{loop}/opened", {})
    for loop, iteration, best in (("b", 1, 1), ("b", 2, 1), ("a", 1, 1), ("a", 2, 2)):
        ledger.append(f"{loop}/i{iteration:03d}/verdict", {"best_iteration": best})
    return ledger


@pytest.mark.parametrize(
    ("at", "chosen"),
    [
        (2, ("a", 2)),
        ("1", ("a", 1)),
        ("best", ("a", 2)),
        ("b/2", ("b", 2)),
        ("b/best", ("b", 1)),
    ],
)
def test_at_names_an_iteration_of_the_loop_completed_last_or_of_a_named_one(ledger, at, chosen):
    assert chosen_iteration(at, ledger) == chosen


@pytest.mark.parametrize("at", [3, 0, -1, 1.5, None, True, "", "last", "c/1", "c/best", "../a/1"])
def test_an_iteration_that_does_not_exist_is_refused_with_what_there_is(ledger, at):
    with pytest.raises(InputError, match="complete are a/1, a/2, b/1, b/2"):
        chosen_iteration(at, ledger)


def test_before_the_first_iteration_there_is_none_to_name(tmp_path):
    with pytest.raises(InputError, match="complete are none yet"):
        chosen_iteration("best", Ledger(tmp_path))
