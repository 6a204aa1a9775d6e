import json

from llamaduo.labels import OTHER_VALUE, WHOLE, each_label, find_labels, read_labels


def responses(count):
    return [
        json.dumps({"kind": "xyz"[n % 3], "urgent": n % 2 == 0, "number": f"N-{n}"})
        for n in range(count)
    ]


def test_fields_with_few_shared_values_are_labels_and_others_are_not():
    assert find_labels(responses(30)) == {"kind": ["x", "y", "z"], "urgent": ["false", "true"]}


def test_one_answer_of_another_form_changes_nothing():
    assert list(find_labels([*responses(30), "I do not know."])) == ["kind", "urgent"]
    assert find_labels([*["yes", "no"] * 30, '{"a": "1"}']) == {WHOLE: ["no", "yes", '{"a": "1"}']}


def test_short_answers_are_labels_themselves_and_free_text_has_none():
    assert find_labels(["yes", "no", "no "] * 10) == {WHOLE: ["no", "yes"]}
    assert find_labels([f"Sentence number {n}." for n in range(30)]) == {}


def test_no_field_is_taken_for_the_whole_response():
    texts = [json.dumps({"response": "yn"[n % 2], "": "a", "number": n}) for n in range(30)]

    labels = read_labels(texts, find_labels(texts))

    assert [name for name, _ in each_label(labels)] == ["response = n", "response = y"]


def test_a_label_is_read_out_of_fences_and_missing_where_it_is_not():
    texts = ['```json\n{"kind": "x", "urgent": true}\n```', '{"kind": "x"', "x"]

    labels = read_labels(texts, {"kind": ["x"], "urgent": ["true"]})

    assert labels.to_numpy().tolist() == [["x", "true"], [None, None], [None, None]]


def test_values_that_the_labels_lack_are_one():
    labels = read_labels(["yes", "Yes, since …", "No, since …"], {WHOLE: ["no", "yes"]})

    assert [name for name, _ in each_label(labels)] == [
        f"response = {OTHER_VALUE}",
        "response = yes",
    ]
