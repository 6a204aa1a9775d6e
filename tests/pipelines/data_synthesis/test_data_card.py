from html.parser import HTMLParser

import pandas as pd
import pytest
from huggingface_hub import DatasetCard
from markdown_it import MarkdownIt

from llamaduo.pipelines.data_synthesis.data_card import SIZES, write_data_card
from tests.pipelines.data_synthesis.tables import coverage, parameters

HOSTILE = "a|b\\|`c` **d**\n| <script>alert(1)</script> [e](http://e) &amp; $f$ _g_ ~~h~~ \\"


NOTHING_FOUND = {
    "detect": "patterns",
    "coverage": {},
    "pairs": {},
    "requests": {},
    "judge_requests": {},
}


def training_set(**columns):
    own = coverage(40).assign(origin="coverage", iteration=1)
    written = coverage(60).assign(
        origin="synthetic",
        teacher="gpt-4o",
        model=["gpt-4o-2024-08-06"] * 50 + [None] * 10,
        prompt_version="self_instruct-1a2b3c4d",
        iteration=[2] * 20 + [3] * 40,
    )
    rows = pd.concat([own, written], ignore_index=True)
    names = ["teacher", "prompt_version"]
    rows[names] = rows[names].fillna("")
    return rows.drop(columns="dropped").assign(**columns)


def card(rows=None, dropped=None, left_out=None, earlier=(), **report):
    counts = {"dropped": dropped or {}, "coverage_left_out": left_out or {}}
    return write_data_card(
        training_set() if rows is None else rows,
        {"iteration": 3, "privacy": NOTHING_FOUND, **counts, **report},
        [{"synthesis": {"dropped": each}} for each in earlier] or None,
        parameters(),
    )


class Cells(HTMLParser):
    """The cells of all tables of a page of Markdown, row by row, and all tags."""

    def __init__(self, text):
        super().__init__()
        self.rows, self.tags, self.in_cell = [], set(), False
        self.feed(MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(text))

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        self.in_cell = tag in ("td", "th") or (self.in_cell and tag != "tr")

    def handle_endtag(self, tag):
        self.in_cell = self.in_cell and tag not in ("td", "th")

    def handle_data(self, data):
        if self.in_cell:
            self.rows[-1][-1] += data


def rows_of(text):
    return Cells(DatasetCard(text).text).rows


def test_the_card_loads_with_the_fields_of_the_hub(tmp_path):
    file = tmp_path / "data_card.md"
    file.write_text(card(), encoding="utf-8")

    data = DatasetCard.load(file).data

    # As huggingface_hub.DatasetCardData and the Hub's list of licences document them.
    assert data.size_categories == ["n<1K"]
    assert (data.language, data.multilinguality) == (None, None)  # too short to tell
    assert data.task_categories == ["text-generation"]
    assert set(data.tags) == {"synthetic", "llamaduo"}
    assert data.license == "unknown"
    assert data.pretty_name


def test_each_share_has_its_model_prompt_and_iteration():
    assert [row for row in rows_of(card()) if row[0] in ("coverage", "synthetic")] == [
        ["coverage", "–", "–", "–", "1", "40", "40.0 %"],
        ["synthetic", "gpt-4o", "–", "self_instruct-1a2b3c4d", "3", "10", "10.0 %"],
        ["synthetic", "gpt-4o", "gpt-4o-2024-08-06", "self_instruct-1a2b3c4d", "2", "20", "20.0 %"],
        ["synthetic", "gpt-4o", "gpt-4o-2024-08-06", "self_instruct-1a2b3c4d", "3", "30", "30.0 %"],
    ]


def test_what_was_dropped_is_summed_over_all_iterations():
    text = card(
        dropped={"refusal": 1, "near_copy_of_test": 2},
        earlier=[{}, {"near_copy_of_test": 3, "a_new_reason": 4}],
        left_out={"near_copy_of_test": 1, "too_long": 1},
    )

    rows = [(row[0], row[2]) for row in rows_of(text) if len(row) == 3]
    assert {("refusal", "1"), ("near_copy_of_test", "5"), ("a_new_reason", "4")} < set(rows)
    assert {("near_copy_of_test", "1"), ("too_long", "1")} < set(rows)
    assert "6 were left out for it" in text


def test_a_coverage_pair_that_would_tie_a_label_to_a_group_is_counted():
    rows = rows_of(card(left_out={"unbalanced": 1}))

    assert ["unbalanced", "would have tied a label to a group of people", "1"] in rows


def test_nothing_dropped_is_said():
    assert "No new pair was dropped." in card()
    assert "No coverage pair was left out." in card()


def test_what_comes_from_outside_is_text_and_nothing_else():
    plain = Cells(DatasetCard(card()).text)
    hostile = training_set(model=HOSTILE, licence=HOSTILE, source=HOSTILE, prompt_version=HOSTILE)

    attacked = Cells(DatasetCard(card(hostile)).text)

    told = " ".join(HOSTILE.split())
    assert attacked.tags == plain.tags
    assert attacked.rows[1][2:4] == [told, told]
    assert attacked.rows[-1] == [told, told, "40"]


def test_the_card_quotes_no_pair():
    secret = training_set(prompt="A secret prompt.", response="A secret response.", system="Psst.")

    text = card(secret)

    assert not any(word in text for word in ("secret", "Psst"))


def test_licences_and_sources_are_those_of_the_pairs_that_no_teacher_wrote():
    own = ["CC-BY-4.0"] * 30 + ["MIT"] * 10
    text = card(training_set(licence=[*own, *[""] * 60], source=[*["tickets"] * 40, *[""] * 60]))

    assert rows_of(text)[-2:] == [["CC-BY-4.0", "tickets", "30"], ["MIT", "tickets", "10"]]
    data = DatasetCard(text).data
    assert (data.license, data.license_name) == ("other", "stated-per-pair")
    assert rows_of(card())[-1] == ["not stated", "not stated", "40"]


def test_the_terms_of_the_provider_are_pointed_out():
    assert "may restrict training on what it wrote" in card()
    assert "Read those that hold for gpt-4o, and" in card()
    assert "no legal advice" in card()
    assert "stand-in" not in card()


def test_a_stand_in_is_called_one_and_has_no_terms():
    text = card(training_set(teacher="stand-in-triage"))

    assert "**The teacher stand-in-triage is an embedded stand-in" in text
    assert "Read those of whatever wrote the responses before" in text


@pytest.mark.parametrize(
    ("prompts", "found", "multilinguality"),
    [
        (["Where is the parcel that I ordered two weeks ago?"] * 100, ["en"], "monolingual"),
        (
            ["Where is the parcel that I ordered two weeks ago?"] * 50
            + ["Wo bleibt das Paket, das ich vor zwei Wochen bestellt habe?"] * 50,
            ["de", "en"],
            "multilingual",
        ),
        (["17"] * 100, None, None),
    ],
    ids=["one", "two", "none"],
)
def test_the_languages_are_those_of_the_prompts(prompts, found, multilinguality):
    made = DatasetCard(card(training_set(prompt=prompts)))

    assert made.data.language == found
    assert made.data.multilinguality == multilinguality
    assert ("guesses them" in made.text) == (found is not None)


def test_personal_details_are_counted_where_they_were_looked_for():
    counted = {
        "coverage": {"email": 3, "phone": 1},
        "pairs": {},
        "requests": {"email": 9},
        "judge_requests": {"ip": 2},
    }

    rows = rows_of(card(privacy={"detect": "patterns", **counted}))

    assert ["coverage pairs", "3 email, 1 phone"] in rows
    assert ["new pairs", "–"] in rows
    assert ["requests to the teacher", "9 email"] in rows
    assert ["requests to the judge of new pairs", "2 ip"] in rows
    assert "switched off" in card(privacy={"detect": "off", **{where: {} for where in counted}})


def test_the_names_of_sizes_are_those_of_the_hub():
    documented = ["n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M", "10M<n<100M"]

    assert list(SIZES) == documented
