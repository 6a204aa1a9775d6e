import csv
import html
import io
import json
import os
import sqlite3
import unicodedata
from contextlib import closing

import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from llamaduo.errors import InputError
from llamaduo.forgetting.display import show
from llamaduo.forgetting.findings import LARGEST, find, rest_of
from llamaduo.forgetting.matcher import RowMatcher
from llamaduo.forgetting.places import Places
from llamaduo.forgetting.wanted import Wanted, passage_of
from llamaduo.ledger import Ledger, ledgers_below
from llamaduo.service_llm.journal import Journal, JournalError
from llamaduo.service_llm.privacy import PrivacyGate
from tests.service_llm.test_journal import received, sent, write

NAME = 'Jürgen "Jo"\nO\'Müller & Söhne'
WANTED = Wanted([NAME])


def matcher(*texts):
    return RowMatcher(Wanted(texts), set())


def in_json(text):
    return json.dumps({"text": text}, ensure_ascii=False)


def in_ascii_json(text):
    return json.dumps({"text": text})


def decomposed(text):
    return unicodedata.normalize("NFD", text)


def spaced(text):
    return "\t\n ".join(text.split(" "))


DISGUISES = st.lists(
    st.sampled_from([in_json, in_ascii_json, html.escape, decomposed, spaced]),
    max_size=4,
)
LETTERS = st.characters(categories=["L", "N", "P", "S", "Zs"])


@pytest.mark.timeout(10)
def test_the_time_grows_with_the_length_of_a_hostile_text():
    answers = " ".join(["yes no"] * 10_000)

    assert not Wanted(["Nora Petersen"]).is_in("\\" * 100_000)
    assert passage_of(answers, f"{answers} at all") == (answers,)


@given(st.text(LETTERS, max_size=20), DISGUISES)
def test_a_text_is_found_however_it_is_escaped_spaced_and_composed(middle, disguises):
    text = f"an {middle} na"
    hidden = text
    for disguise in disguises:
        hidden = disguise(hidden)

    assert Wanted([text]).is_in(f"before {hidden} after")
    assert Wanted([text]).is_in_bytes(f"before {hidden} after".encode())


@pytest.mark.parametrize(
    "hidden",
    [
        "JÜRGEN „JO“ MÜLLER",
        r"C:\\Users\\jürgen „jo“ müller",
        "J\\u00fcrgen \\u201eJo\\u201c\\\\nM&uuml;ller",
        "Jürgen \N{NO-BREAK SPACE}„Jo“\u2028Müller",
        "J&#252;rgen&nbsp;&bdquo;Jo&ldquo; Müller",
    ],
)
def test_a_name_is_found_in_each_spelling_of_files(hidden):
    assert Wanted(["Jürgen „Jo“ Müller"]).is_in(hidden)


@pytest.mark.parametrize(
    ("text", "other"),
    [
        ("Tim", "It is time"),
        ("Ori", "the origin"),
        ("Anna", "Hannah or Annabel"),
        ("Ева", "Евангелина"),
        ("0151 23", "0151 234"),
        ("Jürgen", "ein Jürgensen"),
        ("+491", "ticket 491"),
    ],
)
def test_a_part_of_a_word_is_no_name(text, other):
    assert not Wanted([text]).is_in(other)


@pytest.mark.parametrize(
    ("text", "around"),
    [
        ("Tim", "(tim)"),
        ("Tim", "id_tim_2"),
        ("@firma.example", "anna@firma.example"),
        ("田中太郎", "私は田中太郎です"),
        ("田中太郎", "ID7田中太郎x"),
        ("김철수", "김철수는"),
        ("ســامي", "وســامي"),
    ],
)
def test_a_name_is_found_beside_signs_and_in_scripts_without_spaces(text, around):
    assert Wanted([text]).is_in(around)


def test_a_backslash_may_begin_a_name_instead_of_an_escape():
    assert Wanted(["Nürnberg"]).is_in(in_ascii_json(r"C:\Users\nürnberg"))
    assert Wanted([r"Users\Nürnberg"]).is_in(in_ascii_json(r"C:\Users\nürnberg"))


def test_what_a_person_types_may_be_escaped_too():
    assert Wanted([r"J\u00fcrgen M\u00fcller"]).is_in("Jürgen Müller")


@pytest.mark.parametrize("other", ["Jürgen", "Muller, Jurgen", "Jürgen-Müller", "Jürgen, Müller"])
def test_another_text_is_none_of_them(other):
    assert not Wanted(["Jürgen Müller", "j.mueller@firma.example"]).is_in(other)


@pytest.mark.parametrize("text", ["", "  ", "Jo", " \nJ\t"])
def test_a_text_that_stands_everywhere_is_refused(text):
    with pytest.raises(InputError, match="fewer than 3 characters"):
        Wanted(["Jürgen", text])


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1", "utf-16", "utf-16-le"])
def test_a_name_is_found_in_each_encoding(encoding):
    content = f"Says {'.' * 2**20} Jürgen Müller, again".encode(encoding)

    assert Wanted(["jürgen müller"]).is_in_bytes(content)
    assert not Wanted(["jürgen maier"]).is_in_bytes(content)


def test_a_name_is_found_in_the_midst_of_numbers():
    content = bytes(range(256)) * 40 + "Jürgen Müller".encode() + bytes(range(256)) * 40

    assert Wanted(["jürgen müller"]).is_in_bytes(content)
    assert not Wanted(["jürgen maier", "田中太郎"]).is_in_bytes(content + b"????")


ROWS = [
    {"id": "1", "prompt": 'Says, as always:\n"no" (007)', "response": "ja; ÄÖ"},
    {"id": "2", "prompt": f"Ask {NAME} about it", "response": "x"},
    {"id": "3", "prompt": "plain", "response": f"{NAME}\tsays so"},
    {"id": "4", "prompt": "", "response": "last"},
]
KEPT = [ROWS[0], ROWS[3]]


def as_lines(rows):
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def as_array(rows):
    return json.dumps(rows, ensure_ascii=False, indent=1).encode()


def as_csv(rows, delimiter=",", mark=""):
    text = io.StringIO()
    writer = csv.DictWriter(text, list(ROWS[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return (mark + text.getvalue()).encode()


def as_parquet(rows):
    file = io.BytesIO()
    pd.DataFrame(rows).to_parquet(file)
    return file.getvalue()


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("rows.jsonl", as_lines),
        ("rows.ndjson", as_lines),
        ("rows.json", as_lines),
        ("rows.json", as_array),
        ("rows.csv", as_csv),
        ("rows.csv", lambda rows: as_csv(rows, ";", "\ufeff")),
        ("rows.CSV", as_csv),
        ("rows.tsv", lambda rows: as_csv(rows, "\t")),
    ],
)
def test_a_table_is_left_without_the_rows_and_else_as_it_was(tmp_path, name, written):
    (tmp_path / name).write_bytes(written(ROWS))

    assert rest_of(tmp_path / name, matcher(NAME)) == (written(KEPT), 2)


def test_of_a_parquet_file_no_value_stays_behind(tmp_path):
    names = pa.array([None, NAME, NAME, "b"]).dictionary_encode()
    lists = pa.ListArray.from_arrays(pa.array(range(5), pa.int32()), names)
    table = pa.Table.from_pylist(ROWS).append_column("name", names).append_column("list", lists)
    parquet.write_table(table, tmp_path / "rows.parquet", compression="none")

    rest, removed = rest_of(tmp_path / "rows.parquet", matcher(NAME))

    assert removed == 2
    read = parquet.read_table(io.BytesIO(rest))
    assert read.schema == table.schema
    assert read.select(list(ROWS[0])).to_pylist() == KEPT
    assert "Müller".encode() not in rest


def test_an_array_that_begins_with_a_mark_is_a_table(tmp_path):
    (tmp_path / "rows.json").write_bytes(b"\xef\xbb\xbf" + as_array(ROWS))

    assert rest_of(tmp_path / "rows.json", matcher(NAME)) == (as_array(KEPT), 2)


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_a_file_may_mix_encodings(tmp_path, encoding):
    rest = '{"a": "ü"}\n'.encode("latin-1") + '{"a": "ü"}\n'.encode()
    (tmp_path / "rows.jsonl").write_bytes('{"a": "Jürgen"}\n'.encode(encoding) + rest)

    assert rest_of(tmp_path / "rows.jsonl", matcher("jürgen")) == (rest, 1)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("report.json", '{\n"best":\n"Will"}', "a line"),
        ("rows.json", "[1, 2]", "table"),
        ("rows.json", '[{"a": "Will"}', "table"),
        ("rows.json", '[{"a": "\\ud83d"}, {"a": "Will"}]', "table"),
        ("rows.parquet", "PAR1", "table"),
        ("rows.csv", "prompt,Will\n1,2\n", "header"),
        ("rows.csv", "prompt,Will\n", "header"),
        ("rows.csv", 'a,b\n"x,Will\n', "a line"),
        ("rows.jsonl", '{"Will": "a"}\n{"b": "Will"}\n', "name of a column"),
        ("rows.jsonl", '{"a": "Will", "a": "x"}\n', "a line"),
        ("rows.jsonl", '{\n  "a": "Will"\n}\n', "a line"),
    ],
)
def test_a_file_with_a_text_in_what_is_no_row_is_left(tmp_path, name, content, reason):
    (tmp_path / name).write_text(content, encoding="utf-8")

    with pytest.raises(ValueError, match=reason) as raised:
        rest_of(tmp_path / name, matcher("will"))
    assert "Will" not in str(raised.value)


@pytest.mark.parametrize("name", ["empty.jsonl", "empty.csv"])
def test_an_empty_table_stays_empty(tmp_path, name):
    (tmp_path / name).touch()

    assert rest_of(tmp_path / name, matcher(NAME)) == (b"", 0)


LOOP = "2026-11-01T00.00.00.000Z"
LATER_LOOP = "2026-11-02T00.00.00.000Z"
SLICE = "2026-11-03T00.00.00.000Z"


@pytest.fixture
def places(tmp_path):
    """A data root, with the user's files outside of it."""
    own = {name: tmp_path / f"raw/{name}.jsonl" for name in ("train", "ready", "test", "holdout")}
    return Places(
        roots={tmp_path / "data", tmp_path / "raw"},
        made={f"{name}.jsonl" for name in MADE} | {"report.html", "history.json"},
        inputs={*own.values(), tmp_path / "raw/rows.csv"},
        roles={
            "coverage": {own["train"]},
            "ready": {own["ready"]},
            "tested": {own["test"], own["holdout"]},
        },
        training_sets={"training_set.jsonl"},
        models={(tmp_path / "data/release").resolve()},
        ledgers=[],
        remote=[],
    )


MADE = (
    *("screened_coverage", "seeds", "synthesis_replies", "parsed_pairs", "pair_judge_replies"),
    *("training_set",),
    *("preference_prompts", "preference_responses", "preference_judgements", "preference_pairs"),
    *("responses", "scores", "counterfactuals", "counterfactual_responses"),
    *("audit_cases", "audit_replies"),
)


def path_of(places, name):
    """Of a file below the data root, or in the user's folder."""
    return min(places.roots).parent / (name if name.startswith("raw/") else f"data/{name}")


def put(places, name, content=NAME):
    path = path_of(places, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def put_rows(places, name, *rows):
    return put(places, name, as_lines(rows))


def put_version(places, name, version, *rows):
    return put_rows(places, f"{name}.jsonl/{version}/{name.split('/')[-1]}.jsonl", *rows)


def put_report(places, content=NAME, name="report.html", folder="report.html"):
    return put(places, f"{folder}/{VERSION}/{name}", content)


def rows_of(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def names(paths):
    return {path.name for path in paths}


def test_rows_go_from_tables_and_reports_go_whole(places):
    put_rows(places, "training_set.jsonl", {"text": NAME})
    put_report(places, html.escape(NAME))
    history = as_array([{"alarms": []}, {"alarms": [NAME]}])
    put_report(places, history, "history.json", "old/history.json")
    for name in (".scores.jsonl.partial", ".scores.jsonl.x1.partial"):
        put_report(places, name=name, folder="scores.jsonl")
    put(places, "report.html/other/report.html", "somebody else")

    found = find(places, WANTED)

    assert names(found.rows) == {"training_set.jsonl"}
    assert names(found.whole) == {
        *("report.html", "history.json", ".scores.jsonl.partial"),
        ".scores.jsonl.x1.partial",
    }
    assert not found.left


def test_of_files_that_no_run_has_made_nothing_but_rows_goes(places):
    put_rows(places, "export.jsonl", {"text": NAME})
    put(places, "export.json", as_array([{"text": NAME}]))
    texts = ["minutes.md", "old/vocab.txt", "raw/notes.md", ".x1.partial", "summary.json"]
    texts += ["report.html", "old/2026/report.html", "history.json", "scores.jsonl/1/notes.md"]
    texts += [".scores.jsonl.partial", "raw/report.html/1/report.html"]
    left = {put(places, name) for name in texts}
    places.inputs.add(path_of(places, "raw/report.html"))

    found = find(places, WANTED)

    assert names(found.rows) == {"export.jsonl", "export.json"}
    assert found.whole == []
    assert set(found.left) == left


def test_a_person_has_to_look_at_what_is_no_report(places):
    put_report(places, f"\0{NAME}")
    put(places, "broken.parquet", "PAR1\0")
    put(places, "numbers.json", "[1, 2]")
    put(places, "export.zip", "PK")
    put(places, "wide.csv", f"prompt\n{NAME}\n".encode("utf-16"))
    put(places, "adapter/v/adapter/adapter_config.json", json.dumps(NAME))
    os.truncate(put(places, "weights.bin", "of nobody"), LARGEST + 1)

    found = find(places, WANTED)

    assert names(found.left) == {
        *("report.html", "broken.parquet", "numbers.json", "export.zip", "wide.csv"),
        *("adapter_config.json", "weights.bin"),
    }
    assert found.is_empty


def test_a_file_that_is_called_by_a_name_is_left_to_a_person(places, monkeypatch):
    monkeypatch.chdir(path_of(places, ".").parent)
    put_rows(places, f"raw/{NAME}/rows.jsonl", {"prompt": NAME}, {"prompt": "other"})
    put(places, f"raw/from {NAME}.txt", "nothing")

    found = find(places, WANTED)

    assert set(found.left.values()) == {"its path holds the text"}
    assert names(found.left) == {"rows.jsonl", f"from {NAME}.txt"}
    assert names(found.rows) == {"rows.jsonl"}


def test_the_ledger_is_never_changed(places):
    ledger = Ledger(path_of(places, "test/ledger"))
    ledger.append(f"{LOOP}/opened", {"parameters": NAME})
    places = places._replace(ledgers=ledgers_below(path_of(places, "")))

    assert names(find(places, WANTED).left) == {"opened.json"}


def test_what_a_base_model_knows_it_did_not_learn_here(places):
    put(places, "model/config.json")
    put(places, "model/tokenizer_config.json")
    put(places, "model/tokenizer.json")

    assert not find(places, WANTED).left


def test_what_cannot_be_read_is_named_and_hides_nothing_else(places, monkeypatch):
    table = put_rows(places, "export.jsonl", {"text": NAME})
    put(places, "loop.txt").unlink()
    path_of(places, "loop.txt").symlink_to("loop.txt")
    put(places, "closed/notes.md")
    list_folder = os.scandir

    def scandir(folder):
        if str(folder).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(folder))
        return list_folder(folder)

    monkeypatch.setattr(os, "scandir", scandir)  # root may list every folder

    found = find(places, WANTED)

    assert {path.name: reason for path, reason in found.left.items()} == {
        "closed": "it cannot be read (Is a directory)",
        "loop.txt": "it cannot be read (Too many levels of symbolic links)",
    }
    assert list(found.rows) == [table]


def test_a_date_after_the_year_9999_stops_nothing(places):
    dates = pa.table({"date": pa.array([10_000_000], pa.date32())})
    parquet.write_table(dates, put(places, "dates.parquet"))

    assert names(find(places, WANTED).left) == {"dates.parquet"}


def test_a_folder_behind_a_link_is_looked_into_once(places):
    target = put_rows(places, "../elsewhere/pairs.jsonl", {"text": NAME})
    for link in ("one", "two", "../elsewhere/loop"):
        path_of(places, link).symlink_to(target.parent)

    find(places, WANTED).remove()

    assert target.read_bytes() == b""


def test_a_file_keeps_its_mode(places):
    path = put_rows(places, "pairs.jsonl", {"text": NAME})
    path.chmod(0o640)

    find(places, WANTED).remove()

    assert path.stat().st_mode & 0o777 == 0o640
    assert [each.name for each in path.parent.iterdir()] == ["pairs.jsonl"]


def teach(places, *taught, adapters):
    for version in taught:
        put_version(places, "training_set", version, {"a": NAME})
    for version in adapters:
        put(places, f"adapter/{version}/adapter/adapter_config.json", "{}")


def test_adapters_have_seen_what_they_or_their_forerunners_were_trained_on(places):
    loop, other = [f"{LOOP}-i00{n}" for n in (1, 2, 3)], f"{LATER_LOOP}-i001"
    early = "2026-10-31T00.00.00.000Z"
    teach(places, loop[1], adapters=[early, *loop, other, SLICE])

    adapters = find(places, WANTED).adapters

    assert sorted(path.parent.name for path in adapters) == [*loop[1:], SLICE]


def test_models_that_were_made_of_such_adapters_are_listed_and_not_looked_into(places):
    teach(places, f"{LOOP}-i002", adapters=[f"{LOOP}-i002"])
    early = "2026-10-31T00.00.00.000Z"
    for version in (early, SLICE):
        put(places, f"release/{version}/release/model/tokenizer.json", json.dumps({NAME: 1}))

    found = find(places, WANTED)

    assert [path.parent.name for path in found.adapters if path.name == "release"] == [SLICE]
    assert not [path for path in [*found.left, *found.whole] if "release" in str(path)]


ADDRESS = "j.mueller@firma.example"
LETTER = f"I am Jürgen Müller of Nordstr. 7, mail {ADDRESS}, call me back"
TASK = "Sort this ticket of support."
ROW = {"id": "train-1", "prompt": LETTER, "response": "ok"}
OTHER = {"id": "train-2", "prompt": f"{TASK}\nThe printer is dead, hurry", "response": "b"}
VERSION = f"{LOOP}-i001"
GATE = PrivacyGate()


def run_beside_a_letter(places, row, split="train"):
    """Put a row with an address into a split, and what a loop makes of it behind the gate."""
    put_rows(places, f"raw/{split}.jsonl", row, OTHER, {"id": None, "prompt": ADDRESS})
    (sendable,) = GATE.protect([row["prompt"]]).texts
    assert ADDRESS not in sendable
    shown = json.dumps([row["prompt"], "a reference"], ensure_ascii=False)
    request = json.dumps({"content": f"Judge:\n{GATE.protect([shown, 'x']).texts[0]}"})
    journal = Journal(path_of(places, "journal.sqlite"))
    journal.path.parent.mkdir()
    write(journal, (sent(request=request), received()), (sent(b"2", request=OTHER["prompt"]), None))
    return sendable, journal


def forget_address(places):
    found = find(places, Wanted([ADDRESS]))
    found.remove()
    return found


def test_what_was_made_from_a_row_goes_although_the_gate_has_replaced_its_address(places):
    sendable, journal = run_beside_a_letter(places, ROW)
    pair = {**OTHER, "id": "i001-1", "seed_id": "train-1", "filter_version": "1"}
    others = {**OTHER, "seed_id": "", "filter_version": "1"}
    tables = [
        put_version(places, name, VERSION, {**ROW, **own, "prompt": sendable}, pair, others)
        for name, own in (
            ("screened_coverage", {"filter_version": "1"}),
            ("seeds", {"seed_id": "train-1"}),
            ("training_set", {"seed_id": "", "origin": "coverage", "filter_version": "1"}),
        )
    ]
    teach(places, adapters=[VERSION])
    page = put_report(places, f"<td>{html.escape(sendable)}</td>")

    found = forget_address(places)

    assert len(found.adapters) == 1
    assert [rows_of(table) for table in tables] == [[others]] * 3
    assert not page.exists()
    assert journal.count(lambda text: "Nordstr" in text) == 0
    assert journal.count(lambda text: "printer" in text) == 1
    assert b"Nordstr" not in b"".join(path.read_bytes() for path in places.files())


def test_what_a_loop_has_asked_itself_of_a_row_goes_to_the_preference_pair(places):
    run_beside_a_letter(places, ROW)
    own, other = {"id": "p003-00001", "seed_id": "train-1"}, {"id": "p003-00002", "seed_id": "x"}
    tables = {
        "preference_prompts": {"prompt": "Ask Müller."},
        "preference_responses": {"sample": 1, "response": "Dear Jürgen"},
        "preference_judgements": {"sample": 1, "text": "Jürgen is answered well"},
        "preference_pairs": {"chosen": "Dear Jürgen", "rejected": "Dear Müller"},
    }
    replies = {"preference_responses", "preference_judgements"}  # have the id alone
    written = [
        put_version(
            places,
            name,
            VERSION,
            *({"id": row["id"], **more} if name in replies else row | more for row in (own, other)),
        )
        for name, more in tables.items()
    ]

    forget_address(places)

    assert [[row["id"] for row in rows_of(path)] for path in written] == [["p003-00002"]] * 4


def test_what_answers_a_test_prompt_goes_and_its_figures_stay(places):
    run_beside_a_letter(places, {**ROW, "id": "4"}, "test")
    reply = {"sample": 1, "response": "Dear Jürgen"}
    case = {"prompt_id": "4", "prompt": "I am Ann"}
    replies = put_version(places, "responses", VERSION, {"id": "4", **reply})
    kept = [
        put_version(places, "scores", VERSION, {"id": "4", "similarity": 50}),
        # A test pair whose id looks like that of a counterfactual.
        put_version(places, "responses", "other", {"id": "4/2", **reply}),
        put_version(places, "parsed_pairs", VERSION, {"id": "4", "filter_version": "1"}),
    ]
    cases = put_version(places, "counterfactuals", VERSION, {"id": "4/2", **case})
    answers = put_version(places, "counterfactual_responses", VERSION, {"id": "4/2", **reply})

    forget_address(places)

    assert [path.stat().st_size for path in (replies, cases, answers)] == [0, 0, 0]
    assert all(path.stat().st_size for path in kept)


def test_what_a_judge_wrote_about_a_person_goes_although_ids_are_given_anew(places):
    run_beside_a_letter(places, ROW)
    put_rows(places, "raw/test.jsonl", {**ROW, "id": "test-1"})
    praise = {"text": "Jürgen Müller is answered well"}
    pair = {"id": "i001-00001", "prompt": "Ask Müller.", "seed_id": "train-1"}
    put_version(places, "parsed_pairs", VERSION, pair)
    put_version(places, "parsed_pairs", "later", {**pair, "seed_id": "train-2"})
    put_version(places, "seeds", VERSION, {"seed_id": "train-1"})
    others = put_version(places, "synthesis_replies", VERSION, {"seed_id": "train-2", **praise})
    case = {"id": "audit-7", "kind": "anchor", "prompt": LETTER}
    put_version(places, "audit_cases", VERSION, case)
    put_version(places, "audit_cases", "later", {**case, "prompt": "another"})
    replies = [
        put_version(places, name, version, {"id": own, **more, **praise})
        for version in (VERSION, "later")
        for name, own, more in (
            ("pair_judge_replies", "i001-00001", {}),
            ("audit_replies", "audit-7", {"sample": 1}),
        )
    ]

    found = forget_address(places)

    assert [len(rows_of(path)) for path in (*replies, others)] == [0, 0, 1, 1, 1]
    assert set(list(found.rows)[:2]) == set(replies[:2])  # known by the others alone


def test_requests_about_a_pair_that_was_made_from_a_row_lose_their_texts(places):
    _, journal = run_beside_a_letter(places, ROW)
    derived = "The patient Jürgen Müller would like to be called back"
    put_version(places, "parsed_pairs", VERSION, {"prompt": derived, "seed_id": "train-1"})
    write(journal, (sent(b"3", request=in_ascii_json(f"Is this good? {derived}")), received()))

    forget_address(places)

    assert journal.count(lambda text: "patient" in text) == 0


@pytest.mark.parametrize(
    ("split", "made", "goes"),
    [
        ("ready", {"seed_id": "1", "origin": "ready"}, True),
        ("ready", {"seed_id": "1", "origin": "synthetic"}, False),
        ("ready", {"seed_id": "1"}, False),
        ("ready", {"id": "1", "filter_version": "1", "origin": "coverage"}, False),
        ("train", {"seed_id": "1", "origin": "ready"}, False),
        ("train", {"seed_id": "1"}, True),
        ("train", {"seed_id": "1", "category": "", "weight": 0.5}, True),
        ("train", {"what": "seed", "name": "1", "asked": 2, "kept": 1}, False),
        ("train", {"id": "1", "filter_version": "1"}, True),
        ("train", {"id": "1", "filter_version": "1", "origin": "coverage"}, True),
        ("train", {"id": "1", "sample": 1}, False),
        ("test", {"seed_id": "1"}, False),
    ],
)
def test_rows_of_others_with_the_same_number_stay(places, split, made, goes):
    for each in ("train", "ready"):
        put_rows(places, f"raw/{each}.jsonl", {**OTHER, "id": "1"})
    put_rows(places, f"raw/{split}.jsonl", {**ROW, "id": "1"})
    path = put_rows(places, "seeds.jsonl", made)

    assert (path in find(places, Wanted([ADDRESS])).rows) == goes


def test_a_test_row_with_the_number_of_a_row_that_goes_keeps_its_replies(places):
    run_beside_a_letter(places, {**ROW, "id": "1"})
    put_rows(places, "raw/test.jsonl", {**OTHER, "id": "1"})
    screened = {**ROW, "id": "1", "filter_version": "1"}
    put_version(places, "screened_coverage", VERSION, screened)
    put_version(places, "training_set", VERSION, {**screened, "origin": "coverage"})
    replies = [
        put_version(places, "responses", VERSION, {"id": "1", "sample": 1, "response": "x"}),
        put_version(places, "judgements", VERSION, {"id": "1", "sample": 1, "text": "good"}),
    ]

    found = forget_address(places)

    assert names(found.rows) == {"train.jsonl", "screened_coverage.jsonl", "training_set.jsonl"}
    assert all(path.stat().st_size for path in replies)


def test_an_id_of_two_test_rows_is_nobodys_and_that_is_said(places):
    tested = put_rows(places, "raw/test.jsonl", {**ROW, "id": "1"})
    put_rows(places, "raw/holdout.jsonl", {**OTHER, "id": "1"})
    responses = put_rows(places, "responses.jsonl", {"id": "1", "sample": 1, "response": "x"})

    found = forget_address(places)

    assert rows_of(responses)
    assert "share ids" in found.left[tested]


def test_an_id_may_lose_its_zeros_where_it_is_read_as_a_number(places):
    places.roles["coverage"].add(put(places, "raw/rows.csv", f"id,prompt\n007,{ADDRESS}\n"))
    seeds = put_rows(places, "seeds.jsonl", {"seed_id": "7"}, {"seed_id": "70"})

    forget_address(places)

    assert rows_of(seeds) == [{"seed_id": "70"}]


@pytest.mark.parametrize(
    "detail",
    [
        "<j.mueller@firma.example>",
        "+49 151 23456789 or (030) 1234 5678",
        "4111 1111 1111 1111",
        "DE89 3704 0044 0532 0130 00",
        "8.8.8.8 or 2001:4860:4860::8888",
        "sk-proj-abcdefghijklmnopqrstuvwxyzABCDEFGH1234",
        "AKIAIOSFODNNEXAMPLEQ",
        "https://bob:secret@example.org/path?x=1",
        "my password: hunter2",
        'my password:Sommer!x, yes, "Sommer!x"',
        "GB29 NWBK 6016 1331 9268 19",
        "Bearer abcdef123456",
    ],
)
@pytest.mark.parametrize("end", [", and I live in Nordstrasse", ""])
def test_a_text_is_known_on_both_sides_of_the_gate(detail, end):
    text = f"I am Jürgen, a client of yours: {detail}{end}"
    other = GATE.protect([f"Another letter from there. {text}", "And 8.8.8.8"])
    passages = {passage_of(text, *GATE.protect([text]).texts)}

    assert other.replaced
    assert Wanted(["nobody"], passages).is_in(in_json(other.texts[0]))
    assert not Wanted(["nobody"], passages).is_in(f"A client of yours: {detail}{end}")


def test_what_little_the_gate_leaves_of_a_text_is_nobodys():
    text = "Jürgen, password: hunter2 and that is all"

    assert passage_of(text, *GATE.protect([text]).texts) == ()


def test_requests_that_quote_a_row_with_a_password_lose_their_texts(places):
    start, end = f"My mail is {ADDRESS} and I live in Nordstrasse", "so please call me back"
    letter = f"{start}, my password: hunter2 {end}"
    _, journal = run_beside_a_letter(places, {**ROW, "prompt": letter})
    write(journal, (sent(b"3", request=f"They {end} and live in Nordstrasse"), received()))

    forget_address(places)

    assert journal.count(lambda text: "Nordstrasse" in text) == 1


@pytest.mark.parametrize("words", [TASK, OTHER["prompt"]])
def test_words_that_stand_in_the_rows_of_others_are_nobodys_and_that_is_said(places, words):
    _, journal = run_beside_a_letter(places, {**ROW, "prompt": f"{words}\n{ADDRESS}"})
    requests = journal.count(lambda text: "Sort" in text)

    found = forget_address(places)

    assert journal.count(lambda text: "Sort" in text) == requests
    assert "all the words of a prompt that goes" in found.left[path_of(places, "raw/train.jsonl")]


def test_a_response_that_others_have_too_is_no_quotation(places):
    response = "category billing, priority normal"
    train = put_rows(
        places,
        "raw/train.jsonl",
        {**ROW, "response": f"{response} {ADDRESS}"},
        {**OTHER, "response": response},
    )

    found = find(places, Wanted([ADDRESS]))

    assert found.rows == {train: 1}
    assert not found.left


def test_names_that_presidio_replaced_are_known_by_what_stands_for_them(places):
    run_beside_a_letter(places, ROW)
    sendable = "I am Anna Schmidt of Paris, mail x@example.com"
    screened = {"id": "train-1", "prompt": sendable, "filter_version": "1"}
    put_version(places, "screened_coverage", VERSION, screened)
    journal = Journal(path_of(places, "other.sqlite"))
    write(journal, (sent(request=in_ascii_json(sendable)), received()))

    forget_address(places)

    assert journal.count(lambda text: "Schmidt" in text) == 0


def test_what_was_interrupted_is_finished_by_another_search(places):
    sendable, _ = run_beside_a_letter(places, ROW)
    taught = {**ROW, "prompt": sendable, "filter_version": "1"}
    for name in ("z/screened_coverage", "training_set"):
        put_version(places, name, VERSION, taught)
    teach(places, adapters=[VERSION])
    first = find(places, Wanted([ADDRESS]))
    order = list(first.rows)
    assert [path.name for path in order[-2:]] == ["training_set.jsonl", "train.jsonl"]

    first._replace(rows=dict.fromkeys(order[:-2], 1)).remove()
    again = find(places, Wanted([ADDRESS]))

    assert list(again.rows) == order[-2:]
    assert len(again.adapters) == 1
    again.remove()
    assert find(places, Wanted([ADDRESS])).is_empty


def test_a_journal_is_known_by_what_it_holds(places):
    put(places, "report.html", "somebody else")
    journal = Journal(path_of(places, "moved-away.bak"))
    write(journal, (sent(request=in_ascii_json(NAME)), received()), (sent(), received()))
    put(places, "lost.sqlite-wal", f"7\x7f\0\0{NAME}")
    for table in ("people", "attempts"):
        with closing(sqlite3.connect(path_of(places, table))) as connection:
            connection.execute(f"CREATE TABLE {table} (name TEXT)")
            connection.execute(f"INSERT INTO {table} VALUES (?)", (NAME,))
            connection.commit()

    found = find(places, WANTED)

    assert found.journals == {journal.path: 1}
    assert names(found.left) == {"people", "attempts", "lost.sqlite-wal"}
    found.remove()
    assert find(places, WANTED).is_empty


def test_files_beside_a_journal_that_is_open_are_the_journals(places):
    journal = Journal(path_of(places, "journal.sqlite"))
    with closing(journal.open()) as connection:
        connection.execute("UPDATE attempts SET body = ''")
        assert path_of(places, "journal.sqlite-wal").exists()

        assert not find(places, WANTED).left


def test_nothing_is_removed_while_it_cannot_be_told_whether_a_file_is_a_journal(places):
    put(places, "report.html")
    with closing(sqlite3.connect(path_of(places, "x"), isolation_level=None)) as connection:
        connection.execute("CREATE TABLE people (name TEXT)")
        connection.execute("BEGIN EXCLUSIVE")

        with pytest.raises(JournalError, match="another process has locked"):
            find(places, WANTED)


def test_what_is_left_is_named_with_the_reason_and_without_the_text(places, capsys):
    notes = put(places, "raw/notes.md")
    put_rows(places, "pairs.jsonl", {"text": NAME})
    put_report(places)
    teach(places, VERSION, adapters=[VERSION])

    show(find(places, WANTED), ["s3://bucket/pairs.jsonl"])

    shown = capsys.readouterr().out
    assert f"{os.path.relpath(notes)}: it is neither a table nor a report" in shown
    assert "pairs.jsonl: rows (1)" in shown
    assert "report.html: whole file" in shown
    assert "Write them down" in shown
    assert "\n\n\n" not in shown
    assert "Not on this machine, and not looked at:\n  s3://bucket/pairs.jsonl" in shown
    assert "Müller" not in shown
