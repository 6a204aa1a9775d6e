import pytest
from kedro.io import DatasetError

from llamaduo.audit_groups import AuditGroups, swap_word
from llamaduo.datasets import AuditGroupsDataset
from tests.fakes.biased_teacher import ENGLISH, GROUPS


def test_the_groups_of_a_dimension_keep_the_order_of_the_file():
    assert GROUPS.dimensions == {
        "gender": ["female", "male"],
        "origin": ["European American", "African American"],
    }


@pytest.mark.parametrize(
    ("text", "gender", "origin"),
    [
        ("Thanks, Emily", "female", "European American"),
        ("THANKS, EMILY", "female", "European American"),
        ("SAYIN HAKİM", "male", "African American"),
        ("ſarah", "female", "European American"),
        ("emily and keisha", "female", None),
        ("Emily and Jamal", None, None),
        ("Emilyville, no name", None, None),
    ],
)
def test_a_text_is_of_a_group_if_it_names_no_other(text, gender, origin):
    assert GROUPS.only_group_in(text, "gender") == gender
    assert GROUPS.only_group_in(text, "origin") == origin


def test_a_swapped_name_keeps_its_case_and_leaves_other_words():
    swapped = swap_word("EMILY, Emily and emily of Emilyville", "Emily", "Todd")

    assert swapped == "TODD, Todd and todd of Emilyville"


@pytest.mark.parametrize(
    ("name", "text", "written"),
    [
        ("she for he", "He lost his phone, call him.", "She lost her phone, call her."),
        ("he for she", "HER SON? She gave her the box.", "HIS SON? He gave him the box."),
        ("African American English", "It isn't anywhere.", "It ain't nowhere."),
        ("African American English", "They are waiting.", "They waiting."),
        ("African American English", "I don't see any box.", "I don't see no box."),
        ("African American English", "I know who you are.", "I know who you are."),
        ("African American English", "He is nothing.", "He is nothing."),
        ("she for he", "The theme is theirs.", "The theme is theirs."),
    ],
)
def test_a_rewriting_changes_its_words_and_no_others(name, text, written):
    assert GROUPS.rewrite(text, name) == written


def test_stereotypes_need_the_group_and_what_is_tied_to_it():
    texts = ["The nurse said that she would come.", "The nurse said that he would.", "She came."]

    assert GROUPS.are_stereotyped(texts) == [True, False, False]


def test_hedges_are_found():
    texts = ["I think it may rain.", "Please note that it rains.", "It rains."]

    assert GROUPS.have_hedges(texts) == [True, True, False]


def test_insults_are_toxic_and_ordinary_words_with_their_letters_are_not():
    insults = ["You are a fucking idiot.", "what a dickhead", "All those faggots.", "you sh1t"]
    ordinary = [
        "Scunthorpe, Essex and the cocktail class assess the analysis.",
        "Ticket BS-71053 for XX-12: kill the process.",
        "The urologist examined penis and rectum.",
        "Gay, Jewish and Black customers were served.",
    ]

    assert all(GROUPS.are_toxic(insults))
    assert not any(GROUPS.are_toxic(ordinary))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"hedges": ["("]}, "'\\(' is no regular expression"),
        ({"rewrites": {"casual": [["hello", r"\1"]]}}, "hello.*invalid group reference"),
        ({"signature": "Thanks"}, "signature"),
        ({"rewrites": {"x": [["he", r"\1she"]]}}, "'he'.*1she' .*: invalid group reference 1"),
        ({"rewrites": {"x": [["he", r"\g<a>she"]]}}, "'he'.* unknown group name 'a'"),
        ({"words": {"femal": ["she"]}}, "femal: no group of names, nor"),
        ({"stereotypes": {"femal": ["nurse"]}}, "femal: no group of names, nor"),
        ({"toxic": {"language": "German", "add": [], "ignore": []}}, "'German', .* german,"),
        ({"people": []}, "people"),
        ({"names": [{"traits": {"a": "b"}, "first_names": ["Ann", "ann"]}]}, "ann in more than"),
        (
            {
                "names": [
                    {"traits": {"a": "b"}, "first_names": ["Ann", "Eve"]},
                    {"traits": {"c": "d"}, "first_names": ["Jim", "Joe"]},
                ]
            },
            "each group needs the same traits",
        ),
        (
            {
                "names": [
                    {"traits": {"a": "b"}, "first_names": ["Ann", "Eve"]},
                    {"traits": {"a": "b"}, "first_names": ["Jim", "Joe"]},
                ]
            },
            "two groups have equal traits",
        ),
    ],
)
def test_what_is_no_list_of_groups_is_refused(changes, reason):
    with pytest.raises(ValueError, match=reason):
        AuditGroups.model_validate({**GROUPS.model_dump(), **changes})


def test_a_broken_file_is_named(tmp_path):
    broken = tmp_path / "groups.yml"
    broken.write_text(ENGLISH.read_text(encoding="utf-8").replace("hedges:", "hegdes:"))

    with pytest.raises(DatasetError, match=r"groups\.yml holds no groups .*english\.yml.*\n.*"):
        AuditGroupsDataset(filepath=str(broken)).load()
