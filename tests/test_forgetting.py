import csv
import gzip
import html
import io
import json
import re
import sqlite3
import unicodedata
from contextlib import closing

import pandas as pd
import pytest
from datasets import Dataset, load_from_disk
from hypothesis import given
from hypothesis import strategies as st

from llamaduo.errors import InputError
from llamaduo.forgetting.display import show
from llamaduo.forgetting.findings import Treatment, search
from llamaduo.forgetting.places import Places
from llamaduo.forgetting.rows import rest_of
from llamaduo.forgetting.wanted import Wanted
from llamaduo.ledger import Ledger, ledgers_below
from llamaduo.service_llm.journal import Journal
from tests.service_llm.test_journal import received, sent, write

NAME = 'Jürgen "Jo"\nO\'Müller & Söhne'
WANTED = Wanted([NAME])


def in_json(text):
    return json.dumps({"text": text}, ensure_ascii=False)


def in_ascii_json(text):
    return json.dumps({"text": text})


def decomposed(text):
    return unicodedata.normalize("NFD", text)


def spaced(text):
    return "\t\n ".join(text.split(" "))


DISGUISES = st.lists(
    st.sampled_from([in_json, in_ascii_json, html.escape, decomposed, spaced]), max_size=4
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
    ],
)
def test_a_name_is_found_in_each_spelling_of_files(hidden):
    assert Wanted(["Jürgen „Jo“ Müller"]).is_in(hidden)


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
    file.write_bytes(b"x" * (2**20 - 4) + "Jürgen Müller".encode(encoding) + b"x" * 2**20)

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
        ("rows.jsonl.gz", lambda rows: gzip.compress(as_lines(rows), mtime=0)),
        ("rows.csv", as_csv),
        ("rows.csv", lambda rows: as_csv(rows, ";", "\ufeff")),
        ("rows.CSV.gz", lambda rows: gzip.compress(as_csv(rows), mtime=0)),
        ("rows.tsv", lambda rows: as_csv(rows, "\t")),
    ],
)
def test_a_table_is_left_without_the_rows_and_else_as_it_was(tmp_path, name, written):
    (tmp_path / name).write_bytes(written(ROWS))

    assert rest_of(tmp_path / name, WANTED) == (written(KEPT), 2)


def test_of_a_parquet_file_no_value_stays_behind(tmp_path):
    table = pd.DataFrame(ROWS).assign(category=pd.Categorical(["a", NAME, NAME, None]))
    table.to_parquet(tmp_path / "rows.parquet", compression=None)

    rest, removed = rest_of(tmp_path / "rows.parquet", WANTED)

    assert removed == 2
    assert pd.read_parquet(io.BytesIO(rest))[list(ROWS[0])].to_dict("records") == KEPT
    assert "Müller".encode() not in rest


def test_a_saved_dataset_loads_without_the_rows(tmp_path):
    Dataset.from_list(ROWS).save_to_disk(tmp_path)
    (file,) = tmp_path.glob("*.arrow")

    rest, removed = rest_of(file, WANTED)
    file.write_bytes(rest)

    assert removed == 2
    assert load_from_disk(str(tmp_path)).to_list() == KEPT
    assert "Müller".encode() not in rest


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

    with pytest.raises(ValueError, match=r"array of objects|Extra data|Expecting|Parquet|header"):
        rest_of(tmp_path / name, WANTED)


@pytest.mark.parametrize("name", ["empty.jsonl", "empty.csv"])
def test_an_empty_table_stays_empty(tmp_path, name):
    (tmp_path / name).touch()

    assert rest_of(tmp_path / name, WANTED) == (b"", 0)


LOOP = "2026-11-01T00.00.00.000Z"
LATER_LOOP = "2026-11-02T00.00.00.000Z"
SLICE = "2026-11-03T00.00.00.000Z"


@pytest.fixture
def places(tmp_path):
    """A data root, with the user's files outside of it."""
    root, own = tmp_path / "data", tmp_path / "raw"
    root.mkdir()
    own.mkdir()
    return Places([root, own], {own / "rows.csv"}, "training_set.jsonl", [], [])


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

    (finding,) = search(places, WANTED).findings
    finding.remove(WANTED)

    assert target.read_bytes() == b""


def test_a_file_keeps_its_mode(places):
    path = put(places, "pairs.jsonl", json.dumps({"text": NAME}))
    path.chmod(0o640)

    search(places, WANTED).remove(WANTED)

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
    *almost_all, last = search(places, WANTED).to_remove()
    for finding in almost_all:
        finding.remove(WANTED)

    again = search(places, WANTED)

    assert again.to_remove() == [last]
    assert len(again.tainted()) == 1
    again.remove(WANTED)
    assert search(places, WANTED).findings == []


def test_a_journal_is_known_by_what_it_holds(places):
    journal = Journal(places.roots[0] / "moved-away.bak")
    write(journal, (sent(request=in_ascii_json(NAME)), received()), (sent(), received()))
    other = places.roots[0] / "other.sqlite"
    with closing(sqlite3.connect(other)) as connection:
        connection.execute("CREATE TABLE people (name TEXT)")
        connection.execute("INSERT INTO people VALUES (?)", (NAME,))
        connection.commit()

    found = search(places, WANTED)
    found.remove(WANTED)

    assert {each.path: each.treatment for each in found.findings} == {
        journal.path: Treatment.TEXTS,
        other: Treatment.LEFT,
    }
    assert search(places, WANTED).to_remove() == []


def test_what_is_left_is_named_with_the_reason_and_without_the_text(places, capsys):
    notes = places.roots[1] / "notes.md"
    notes.write_text(NAME, encoding="utf-8")
    put(places, "pairs.jsonl", json.dumps({"text": NAME}))

    show(search(places, WANTED), ["s3://bucket/pairs.jsonl"])

    shown = capsys.readouterr().out
    assert f"{notes}: it is yours, and no table" in shown
    assert re.search(r"1 │ rows +│", shown)
    assert "Not on this machine, and not looked at:\n  s3://bucket/pairs.jsonl" in shown
    assert "Müller" not in shown
