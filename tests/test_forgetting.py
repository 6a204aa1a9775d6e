import csv
import html
import io
import json
import quopri
import sqlite3
import unicodedata
from contextlib import closing
from urllib.parse import quote, quote_plus

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamaduo.errors import InputError
from llamaduo.forgetting.display import show
from llamaduo.forgetting.findings import Treatment, rest_of, search
from llamaduo.forgetting.person import Person
from llamaduo.forgetting.places import Places
from llamaduo.forgetting.wanted import Wanted, words_of
from llamaduo.ledger import Ledger, ledgers_below
from llamaduo.service_llm.journal import Journal
from llamaduo.service_llm.privacy import PrivacyGate
from tests.service_llm.test_journal import received, sent, write

NAME = 'Jürgen "Jo"\nO\'Müller & Söhne'
WANTED = Wanted([NAME])
PERSON = Person(WANTED, set(), set())


def in_json(text):
    return json.dumps({"text": text}, ensure_ascii=False)


def in_ascii_json(text):
    return json.dumps({"text": text})


def decomposed(text):
    return unicodedata.normalize("NFD", text)


def spaced(text):
    return "\t\n ".join(text.split(" "))


def in_quoted_printable(text):
    return quopri.encodestring(text.encode()).decode()


DISGUISES = st.lists(
    st.sampled_from([in_json, in_ascii_json, html.escape, decomposed, spaced, quote_plus]),
    max_size=4,
)
LETTERS = st.characters(categories=["L", "N", "P", "S", "Zs"])


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
        quote("Jürgen „Jo“ Müller"),
        quote_plus("Jürgen „Jo“ Müller"),
        in_json(in_quoted_printable(f"{'x' * 60} Jürgen „Jo“ Müller")),
    ],
)
def test_a_name_is_found_in_each_spelling_of_files(hidden):
    assert Wanted(["Jürgen „Jo“ Müller"]).is_in(hidden)


@pytest.mark.parametrize("hidden", ["?to=anna%40firma.example", "J=FCrgen", "J%FCrgen"])
def test_an_address_is_found_in_urls_and_in_latin_1(hidden):
    assert Wanted(["anna@firma.example", "Jürgen"]).is_in(hidden)


@pytest.mark.parametrize(
    ("text", "other"),
    [
        ("Tim", "It is time"),
        ("Ori", "the origin"),
        ("Anna", "Hannah or Annabel"),
        ("Ева", "Евангелина"),
        ("0151 23", "0151 234"),
        ("Jürgen", "ein Jürgensen"),
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


def test_what_a_person_types_may_be_escaped_too():
    assert Wanted([r"J\u00fcrgen M\u00fcller"]).is_in("Jürgen Müller")


@pytest.mark.parametrize("other", ["Jürgen", "Muller, Jurgen", "Jürgen-Müller", "Jürgen, Müller"])
def test_another_text_is_none_of_them(other):
    assert not Wanted(["Jürgen Müller", "j.mueller@firma.example"]).is_in(other)


@pytest.mark.parametrize("text", ["", "  ", "Jo", " \nJ\t"])
def test_a_text_that_stands_everywhere_is_refused(text):
    with pytest.raises(InputError, match="fewer than 3 characters"):
        Wanted(["Jürgen", text])


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1"])
def test_a_name_is_found_in_a_file_of_any_size(tmp_path, encoding):
    file = tmp_path / "large"
    file.write_bytes(b" " * (2**20 - 4) + "Jürgen Müller".encode(encoding) + b" " * 2**20)

    assert Wanted(["jürgen müller"]).is_in_file(file)
    assert not Wanted(["jürgen maier"]).is_in_file(file)


def test_a_name_is_found_in_the_midst_of_numbers(tmp_path):
    file = tmp_path / "weights"
    file.write_bytes(bytes(range(256)) * 40 + "Jürgen Müller".encode() + bytes(range(256)) * 40)

    assert Wanted(["jürgen müller"]).is_in_file(file)
    assert not Wanted(["jürgen maier"]).is_in_file(file)


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

    assert rest_of(tmp_path / name, PERSON) == (written(KEPT), 2)


def test_of_a_parquet_file_no_value_stays_behind(tmp_path):
    table = pd.DataFrame(ROWS).assign(category=pd.Categorical(["a", NAME, NAME, None]))
    table.to_parquet(tmp_path / "rows.parquet", compression=None)

    rest, removed = rest_of(tmp_path / "rows.parquet", PERSON)

    assert removed == 2
    assert pd.read_parquet(io.BytesIO(rest))[list(ROWS[0])].to_dict("records") == KEPT
    assert "Müller".encode() not in rest


@pytest.mark.parametrize(("name", "written"), [("a.jsonl", as_lines), ("a.json", as_array)])
def test_names_of_columns_are_no_values(tmp_path, name, written):
    (tmp_path / name).write_bytes(written([{"will": "now"}, {"will": "Will"}]))

    _, removed = rest_of(tmp_path / name, Person(Wanted(["will"]), set(), set()))

    assert removed == 1


def test_a_key_that_stands_twice_hides_nothing(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"a": "Jürgen Müller", "a": "x"}\n', encoding="utf-8")

    assert rest_of(tmp_path / "rows.jsonl", Person(Wanted(["jürgen"]), set(), set())) == (b"", 1)


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_a_file_may_mix_encodings(tmp_path, encoding):
    rest = '{"a": "ü"}\n'.encode("latin-1") + '{"a": "ü"}\n'.encode()
    (tmp_path / "rows.jsonl").write_bytes('{"a": "Jürgen"}\n'.encode(encoding) + rest)

    assert rest_of(tmp_path / "rows.jsonl", Person(Wanted(["jürgen"]), set(), set())) == (rest, 1)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("report.json", b'{"best": "Jo"}'),
        ("report.json", b'{\n"best":\n"Jo"}'),
        ("rows.json", b"[1, 2]"),
        ("rows.parquet", b"PAR1"),
        ("rows.csv", f"prompt,{NAME[:11]} O'Müller & Söhne\n1,2\n".encode()),
    ],
)
def test_what_is_no_table_has_no_rows(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)

    with pytest.raises(ValueError, match=r"array of objects|no JSON|Parquet|header"):
        rest_of(tmp_path / name, PERSON)


@pytest.mark.parametrize("name", ["empty.jsonl", "empty.csv"])
def test_an_empty_table_stays_empty(tmp_path, name):
    (tmp_path / name).touch()

    assert rest_of(tmp_path / name, PERSON) == (b"", 0)


LOOP = "2026-11-01T00.00.00.000Z"
LATER_LOOP = "2026-11-02T00.00.00.000Z"
SLICE = "2026-11-03T00.00.00.000Z"


@pytest.fixture
def places(tmp_path):
    """A data root, with the user's files outside of it."""
    root, own = tmp_path / "data", tmp_path / "raw"
    root.mkdir()
    own.mkdir()
    taught, tested = {own / "coverage_train.jsonl"}, {own / "coverage_test.jsonl"}
    return Places(
        roots=[root, own],
        own={own / "rows.csv"} | taught | tested,
        training_set="training_set.jsonl",
        taught=taught,
        tested=tested,
        carried={"training_set.jsonl", "iteration_history.json"},
        ledgers=[],
        remote=[],
    )


def put(places, name, content=NAME):
    path = places.roots[0] / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")
    return path


def treatments(places):
    return {each.path.name: each.treatment for each in search(places, WANTED).findings}


def test_rows_go_from_tables_and_reports_go_whole(places):
    put(places, "pairs.jsonl", json.dumps({"text": NAME}) + "\n")
    put(places, "report.html", html.escape(NAME))
    put(places, ".rows.jsonl.x1.partial")
    put(places, "other.html", "somebody else")

    assert treatments(places) == {
        "pairs.jsonl": Treatment.ROWS,
        "report.html": Treatment.WHOLE,
        ".rows.jsonl.x1.partial": Treatment.WHOLE,
    }


def test_a_person_has_to_look_at_what_is_no_report_of_ours(places):
    put(places, "../raw/notes.md")
    put(places, "plot.png", f"\0{NAME}")
    put(places, "broken.parquet", "PAR1\0")
    put(places, "export.zip", "PK")
    put(places, "adapter/v/adapter/adapter_config.json", json.dumps(NAME))

    assert set(treatments(places).values()) == {Treatment.LEFT}
    assert set(treatments(places)) == {
        "notes.md",
        "plot.png",
        "broken.parquet",
        "export.zip",
        "adapter_config.json",
    }


def test_the_ledger_is_never_changed(places):
    ledger = Ledger(places.roots[0] / "test/ledger")
    ledger.append(f"{LOOP}/opened", {"parameters": NAME})
    places = places._replace(ledgers=ledgers_below(places.roots[0]))

    assert treatments(places) == {"opened.json": Treatment.LEFT}


def test_what_a_base_model_knows_it_did_not_learn_here(places):
    put(places, "model/config.json")
    put(places, "model/tokenizer_config.json")
    put(places, "model/tokenizer.json")

    assert treatments(places) == {}


def test_a_folder_behind_a_link_is_looked_into_once(places, tmp_path):
    target = put(places, "../elsewhere/pairs.jsonl", json.dumps({"text": NAME}))
    for link in ("one", "two", "../elsewhere/loop"):
        (places.roots[0] / link).symlink_to(target.parent)

    search(places, WANTED).remove()

    assert target.read_bytes() == b""


def test_a_file_keeps_its_mode(places):
    path = put(places, "pairs.jsonl", json.dumps({"text": NAME}))
    path.chmod(0o640)

    search(places, WANTED).remove()

    assert path.stat().st_mode & 0o777 == 0o640
    assert [each.name for each in path.parent.iterdir()] == ["pairs.jsonl"]


def teach(places, *taught, adapters):
    for version in taught:
        put(places, f"training_set.jsonl/{version}/training_set.jsonl", json.dumps({"a": NAME}))
    for version in adapters:
        put(places, f"adapter/{version}/adapter/adapter_config.json", "{}")


def test_adapters_have_seen_what_they_or_their_forerunners_were_trained_on(places):
    loop, other = [f"{LOOP}-i00{n}" for n in (1, 2, 3)], f"{LATER_LOOP}-i001"
    early = "2026-10-31T00.00.00.000Z"
    teach(places, loop[1], adapters=[early, *loop, other, SLICE])

    tainted = search(places, WANTED).tainted()

    assert sorted(path.parent.name for path in tainted) == [*loop[1:], SLICE]


def test_what_was_interrupted_is_finished_by_another_search(places):
    teach(places, f"{LOOP}-i001", adapters=[f"{LOOP}-i001"])
    put(places, "z_report.html", html.escape(NAME))
    put(places, "a.jsonl", json.dumps({"text": NAME}))
    first = search(places, WANTED)
    *almost_all, last = first.to_remove()
    for finding in almost_all:
        finding.remove(first.person)

    again = search(places, WANTED)

    assert again.to_remove() == [last]
    assert len(again.tainted()) == 1
    again.remove()
    assert search(places, WANTED).findings == []


ADDRESS = "j.mueller@firma.example"
LETTER = f"I am Jürgen Müller of Nordstr. 7, mail {ADDRESS}, call me back"
TASK = "Sort this ticket of support."
OTHER = {"id": "train-2", "prompt": f"{TASK}\nThe printer is dead, hurry", "response": "b"}
GATE = PrivacyGate()


def put_rows(places, name, *rows):
    return put(places, name, as_lines(rows).decode())


def run_beside_a_letter(places, row, split):
    """Put a row with an address into a split, and what a loop makes of it behind the gate."""
    put_rows(places, f"../raw/coverage_{split}.jsonl", row, OTHER, {"id": None, "prompt": ADDRESS})
    (sendable,) = GATE.protect([row["prompt"]]).texts
    assert ADDRESS not in sendable
    shown = json.dumps([row["prompt"], "a reference"], ensure_ascii=False)
    request = json.dumps({"content": f"Judge:\n{GATE.protect([shown, 'x']).texts[0]}"})
    journal = Journal(places.roots[0] / "journal.sqlite")
    write(journal, (sent(request=request), received()), (sent(b"2", request=OTHER["prompt"]), None))
    return sendable, journal


def rows_of(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_what_was_made_from_a_row_goes_although_the_gate_has_replaced_its_address(places):
    row = {"id": "train-1", "prompt": LETTER, "response": "ok"}
    sendable, journal = run_beside_a_letter(places, row, "train")
    made = {**OTHER, "id": "i001-1", "seed_id": "train-1", "filter_version": "1"}
    others = {**OTHER, "seed_id": "", "filter_version": "1"}
    version = f"{LOOP}-i001"
    tables = [
        put_rows(
            places, f"{name}/{version}/{name}", {**row, **own, "prompt": sendable}, made, others
        )
        for name, own in (
            ("screened_coverage.jsonl", {"filter_version": "1"}),
            ("seeds.jsonl", {"seed_id": "train-1"}),
            ("training_set.jsonl", {"seed_id": "", "filter_version": "1"}),
        )
    ]
    put(places, f"adapter/{version}/adapter/adapter_config.json", "{}")
    page = put(places, "report.html", f"<td>{html.escape(sendable)}</td>")

    found = search(places, Wanted([ADDRESS]))
    found.remove()

    assert len(found.tainted()) == 1
    assert [rows_of(table) for table in tables] == [[others]] * 3
    assert not page.exists()
    assert journal.count(lambda text: "Nordstr" in text) == 0
    assert journal.count(lambda text: "printer" in text) == 1
    assert b"Nordstr" not in b"".join(p.read_bytes() for p in places.files())


def test_what_answers_a_test_prompt_goes_and_its_figures_stay(places):
    run_beside_a_letter(places, {"id": "test-1", "prompt": LETTER, "response": "ok"}, "test")
    put_rows(places, "responses.jsonl", {"id": "test-1", "sample": 1, "response": "Dear Jürgen"})
    put_rows(places, "answers.jsonl", {"id": "test-1/2", "sample": 1, "response": "Dear Jürgen"})
    put_rows(
        places, "swapped.jsonl", {"id": "test-1/2", "prompt_id": "test-1", "prompt": "I am Ann"}
    )
    put_rows(places, "scores.jsonl", {"id": "test-1", "similarity": 50})
    put_rows(places, "new_pairs.jsonl", {"id": "test-1", "seed_id": "", "filter_version": "1"})

    search(places, Wanted([ADDRESS])).remove()

    left = {path.name for path in places.roots[0].glob("*.jsonl") if path.stat().st_size}
    assert left == {"scores.jsonl", "new_pairs.jsonl"}


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
    ],
)
def test_the_words_of_a_text_are_the_same_on_both_sides_of_the_gate(detail):
    text = f"I am Jürgen, at {detail}, of Nordstr."
    protected, replaced = GATE.protect([text])

    assert replaced
    assert words_of(*protected) == words_of(text)
    assert "jürgen at" in words_of(text)


def test_words_that_stand_in_the_rows_of_others_are_nobodys(places):
    row = {"id": "train-1", "prompt": f"{TASK}\n{ADDRESS}", "response": "ok"}
    _, journal = run_beside_a_letter(places, row, "train")

    search(places, Wanted([ADDRESS])).remove()

    assert journal.count(lambda text: "printer" in text) == 1


def test_names_that_presidio_replaced_are_known_by_what_stands_for_them(places):
    run_beside_a_letter(places, {"id": "train-1", "prompt": LETTER, "response": "ok"}, "train")
    sendable = "I am Anna Schmidt of Paris, mail x@example.com"
    put_rows(places, "screened.jsonl", {"id": "train-1", "prompt": sendable, "filter_version": "1"})
    journal = Journal(places.roots[0] / "other.sqlite")
    write(journal, (sent(request=in_ascii_json(sendable)), received()))

    search(places, Wanted([ADDRESS])).remove()

    assert journal.count(lambda text: "Schmidt" in text) == 0


def test_an_interrupted_removal_still_knows_what_came_from_a_row(places):
    row = {"id": "train-1", "prompt": LETTER, "response": "ok"}
    sendable, _ = run_beside_a_letter(places, row, "train")
    taught = {**row, "prompt": sendable, "filter_version": "1"}
    put_rows(places, f"training_set.jsonl/{LOOP}-i001/training_set.jsonl", taught)
    put_rows(places, "screened.jsonl", taught)

    order = [each.path.name for each in search(places, Wanted([ADDRESS])).to_remove()]

    assert order[-2:] == ["training_set.jsonl", "coverage_train.jsonl"]


def test_a_history_is_a_report_and_the_loop_that_reads_it_is_named(places, capsys):
    ledger = Ledger(places.roots[0] / "ledger")
    for loop, iterations in ((LOOP, 2), (LATER_LOOP, 1)):
        ledger.append(f"{loop}/opened", {})
        for number in range(1, iterations + 1):
            ledger.append(f"{loop}/i{number:03d}/verdict", {})
    entries = [{"iteration": 1, "alarms": []}, {"iteration": 2, "alarms": [NAME]}]
    history = as_array(entries).decode()
    old = put(places, f"iteration_history.json/{LATER_LOOP}-i000/iteration_history.json", history)
    path = put(places, f"iteration_history.json/{LOOP}-i002/iteration_history.json", history)
    found = search(places._replace(ledgers=[ledger]), WANTED)

    assert {each.path: each.treatment for each in found.findings} == {
        path: Treatment.WHOLE,
        old: Treatment.WHOLE,
    }
    assert found.ended() == [LOOP]
    show(found)
    assert f"  {LOOP}\nStart a new one" in capsys.readouterr().out


def test_a_journal_is_known_by_what_it_holds(places):
    journal = Journal(places.roots[0] / "moved-away.bak")
    write(journal, (sent(request=in_ascii_json(NAME)), received()), (sent(), received()))
    other = places.roots[0] / "other.sqlite"
    with closing(sqlite3.connect(other)) as connection:
        connection.execute("CREATE TABLE people (name TEXT)")
        connection.execute("INSERT INTO people VALUES (?)", (NAME,))
        connection.commit()

    found = search(places, WANTED)
    found.remove()

    assert {each.path: each.treatment for each in found.findings} == {
        journal.path: Treatment.TEXTS,
        other: Treatment.LEFT,
    }
    assert search(places, WANTED).to_remove() == []


def test_what_is_left_is_named_with_the_reason_and_without_the_text(places, capsys):
    notes = places.roots[1] / "notes.md"
    notes.write_text(NAME, encoding="utf-8")
    put(places, "pairs.jsonl", json.dumps({"text": NAME}))

    show(search(places._replace(remote=["s3://bucket/pairs.jsonl"]), WANTED))

    shown = capsys.readouterr().out
    assert f"{notes}: it is yours, and no table" in shown
    assert "pairs.jsonl: rows (1)" in shown
    assert "Not on this machine, and not looked at:\n  s3://bucket/pairs.jsonl" in shown
    assert "Müller" not in shown
