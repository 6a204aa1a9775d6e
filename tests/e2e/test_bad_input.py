"""Each mistake of a user gets its own sentence before anything is generated."""

import json

import pytest

PAIR = {"id": "a", "prompt": "Triage this.", "response": "{}"}


def refused(project, *arguments):
    output = project.kedro("run", "--env=test", *arguments, code=1)
    assert "Traceback" not in output
    assert not project.data.exists() or not list(project.data.glob("0*"))
    return " ".join(output.split())


def write(project, name, *lines):
    path = project.folder / f"data/01_raw/{name}.jsonl"
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def test_a_missing_coverage_file_is_named(project):
    (project.folder / "data/01_raw/coverage_test.jsonl").unlink()

    output = refused(project)

    assert "coverage_test" in output
    assert "No such file" in output


def test_an_empty_coverage_file_is_named(project):
    write(project, "coverage_train")

    assert "coverage_train.jsonl): expected pairs, the file is empty" in refused(project)


def test_a_missing_column_is_named(project):
    write(project, "coverage_train", json.dumps({"id": "a", "prompt": "x"}))

    assert "coverage_train.jsonl): expected a column 'response'" in refused(project)


def test_a_row_that_is_no_json_is_named_by_file_and_line(project):
    write(project, "coverage_holdout", json.dumps(PAIR), "{'id': 'b'}")

    output = refused(project)

    assert "coverage_holdout.jsonl:2: expected a JSON object" in output


def test_all_mistakes_are_named_at_once(project):
    write(project, "coverage_train", json.dumps({**PAIR, "response": " "}))
    write(project, "coverage_test", json.dumps(PAIR), json.dumps(PAIR))

    output = refused(project)

    assert "column response fails str_matches" in output
    assert "column id fails field_uniqueness in 2 row(s), such as 'a'" in output


@pytest.mark.parametrize(
    ("parameter", "sentence"),
    [
        ("evaluation.taget_precision=90", "taget_precision"),
        ("fine_tuning.start=middle", "'previous' or 'base'"),
        ("evaluation.target_precision=190", "less than or equal to 100"),
    ],
    ids=["typo", "choice", "range"],
)
def test_a_wrong_parameter_is_named(project, parameter, sentence):
    assert sentence in refused(project, f"--params={parameter}")


def test_an_unknown_group_of_parameters_is_named(project):
    output = refused(project, "--params=evaluaton.target_precision=90")

    assert "there is no group 'evaluaton'" in output


def test_a_pair_in_two_splits_is_named(project):
    train = project.folder / "data/01_raw/coverage_train.jsonl"
    pair = json.loads(train.read_text().splitlines()[0])
    test = project.folder / "data/01_raw/coverage_test.jsonl"
    copy = json.dumps({**pair, "id": "copied", "prompt": pair["prompt"].upper()})
    test.write_text(test.read_text() + copy + "\n")

    message = refused(project)

    assert "coverage_test and coverage_train share 1 prompt(s), such as that of copied" in message
    assert pair["prompt"][:30].lower() not in message.lower()


def test_a_prompt_text_without_its_placeholder_is_named(project):
    prompt = project.folder / "conf/base/prompts/judge.txt"
    prompt.write_text("Judge this: {{ csae }}")

    assert "has the placeholders ['csae'], expected ['case', 'nonce']" in refused(project)


def test_a_json_object_in_place_of_text_is_named(project):
    write(project, "coverage_train", json.dumps({**PAIR, "response": {"k": 1}}))

    assert "row 1: column response holds {'k': 1}, expected text" in refused(project)


def test_a_missing_key_is_named_with_where_to_put_it(project):
    output = project.kedro("run", "--env=openai", code=1)

    assert "api.openai.com needs a key" in " ".join(output.split())
    assert "OPENAI_API_KEY" in output


def test_a_missing_model_folder_is_named(project):
    project.configure("catalog.yml", {"base_model": {"filepath": "data/06_models/none"}})

    assert "no model in" in refused(project)


def test_a_service_llm_that_refuses_the_task_is_named_before_anything_is_trained(project):
    pair = {"id": "a", "prompt": "Translate 'good morning' into French.", "response": "Bonjour."}
    write(project, "coverage_train", json.dumps(pair))

    output = refused(project)

    assert "judge, service_llm: stand-in-triage refuses this task: I am a stand-in" in output
    assert "know only support-ticket triage" in output


def test_a_strategy_without_a_prompt_text_is_named(project):
    output = project.kedro(
        "run", "--env=test", "--params=data_synthesis.strategies.hardest=1", code=1
    )

    assert "names hardest, but there is no prompt text" in " ".join(output.split())
