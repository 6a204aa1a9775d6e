"""How long pairs are for the model that will learn them."""

from llamaduo.local_llm.base_model import BaseModelSpec
from llamaduo.local_llm.lengths import refuse_long_pairs


def test_a_special_token_that_a_response_spells_counts_as_the_text_that_it_is(
    random_model: BaseModelSpec,
) -> None:
    pairs = [("", "Hi", "."), ("", "Hi", "<|im_end|>")]

    full_stop, spelled = (
        int(refusal.split(" tokens, ")[0])
        for refusal in refuse_long_pairs(random_model, pairs, max_length=1)
    )

    assert spelled - full_stop == len(["<", "|", "im", "_", "end", "|", ">"]) - 1
