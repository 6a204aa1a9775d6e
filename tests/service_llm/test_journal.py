import asyncio
import os
import signal
import sqlite3
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from llamaduo.service_llm.budget import Cost
from llamaduo.service_llm.journal import (
    ANSWERED,
    Journal,
    JournalError,
    Received,
    Sent,
    request_key,
)
from llamaduo.service_llm.journal_writer import JournalWriter

BODY = {"model": "m", "messages": [{"role": "user", "content": "héllo \ud83d"}]}


def sent(key=b"key", account="loop", usd=0.5, request="{}"):
    return Sent(key, account, "here", "m", "test", request, 400, 20, 100.0, 20.0, usd)


def received(outcome=ANSWERED, body="the answer", tokens=(80, 10), usd=0.25):
    return Received(200, body, outcome, tokens, usd)


def write(journal, *entries):
    async def all_of_them():
        async with JournalWriter(journal) as writer:
            for before, after in entries:
                row = await writer.sending(before)
                if after:
                    await writer.received(row, after)

    asyncio.run(all_of_them())


def answers(journal, keys):
    return {key: body for key, body, _ in journal.answers(keys)}


@pytest.fixture
def journal(tmp_path):
    return Journal(tmp_path / "journal.sqlite")


def test_only_a_whole_answer_is_given_again(journal):
    write(journal, (sent(), received("cut off")), (sent(b"other"), received()))

    assert answers(journal, [b"key", b"other", b"unknown"]) == {b"other": "the answer"}


def test_many_keys_are_found_a_piece_at_a_time(journal):
    keys = [str(number).encode() for number in range(1200)]
    write(journal, *[(sent(key), received()) for key in keys])

    assert set(answers(journal, keys)) == set(keys)


def test_the_key_tells_apart_what_differs_and_nothing_else():
    key = request_key("here", BODY, 1)

    assert key == request_key("here", dict(reversed(BODY.items())), 1)
    assert key not in {
        request_key("there", BODY, 1),
        request_key("here", {**BODY, "temperature": 0}, 1),
        request_key("here", BODY, 2),
    }


def test_an_account_is_what_was_counted_and_else_what_was_estimated(journal):
    write(
        journal,
        (sent(), received()),
        (sent(), None),  # never answered
        (sent(), received("gave up", None, tokens=None)),
        (sent(), received("gave up", "busy", tokens=(0, 0), usd=0.0)),
        (sent(account="other"), received()),
    )

    assert journal.spent("loop") == Cost(0.25 + 0.5 + 0.5, 90 + 120 + 120, 4)
    assert journal.spent("nobody") == Cost(0, 0, 0)


def test_what_answers_cost_is_learnt_from_those_that_say_it(journal):
    assert journal.calibration("here", "m", "test") is None

    write(journal, (sent(), received()), (sent(), received(tokens=None)))

    known = journal.calibration("here", "m", "test")
    assert (known.tokens_per_byte, known.tokens_per_expected) == (80 / 400, 10 / 20)
    assert journal.calibration("here", "m", "another purpose") is None


def test_a_journal_that_nobody_used_leaves_no_file(journal, tmp_path):
    assert answers(journal, [b"key"]) == {}
    assert list(tmp_path.iterdir()) == []


def test_only_its_owner_can_read_the_file(journal):
    write(journal, (sent(), None))

    assert stat.S_IMODE(journal.path.stat().st_mode) == 0o600


def test_what_is_forgotten_is_paid_for_and_never_answers_again(journal):
    write(
        journal,
        (sent(b"1", request="about PERSON"), received(body="one")),
        (sent(b"2"), received(body="PERSON, two")),
        (sent(b"3", request="about PERSON"), None),
        (sent(b"4"), received(body="four")),
    )
    spent = journal.spent("loop")

    assert journal.count(lambda text: "PERSON" in text) == 3
    assert journal.forget(lambda text: "PERSON" in text) == 3

    assert answers(journal, [b"1", b"2", b"3", b"4"]) == {b"4": "four"}
    assert journal.spent("loop") == spent
    assert journal.count(lambda text: "PERSON" in text) == 0


def test_counting_changes_no_byte_of_a_journal_of_any_version(journal, tmp_path):
    with closing(sqlite3.connect(journal.path)) as connection:
        connection.execute("CREATE TABLE attempts (request TEXT, body TEXT, usable INTEGER)")
        connection.execute("INSERT INTO attempts VALUES ('about PERSON', NULL, 1)")
        connection.commit()
    before = journal.path.read_bytes()

    assert journal.count(lambda text: "PERSON" in text) == 1

    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == {journal.path: before}


def test_no_byte_of_what_is_forgotten_is_left_beside_the_journal(journal, tmp_path):
    long = "PERSON" * 10_000
    write(journal, *[(sent(request=f"PERSON {n}"), received(body=long)) for n in range(20)])
    command = [sys.executable, "-c", DIE_WITH_THE_JOURNAL_OPEN, str(journal.path)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert (tmp_path / "journal.sqlite-wal").stat().st_size

    journal.forget(lambda text: "PERSON" in text)

    left = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"PERSON" not in left
    assert len(left) < 100_000


DIE_WITH_THE_JOURNAL_OPEN = """
import os, signal, sys
from pathlib import Path
from llamaduo.service_llm.journal import Journal
connection = Journal(Path(sys.argv[1])).open()
connection.execute("UPDATE attempts SET body = 'PERSON' WHERE id % 2")
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_journal_that_somebody_reads_is_not_said_to_be_clean(journal):
    write(journal, (sent(request="about PERSON"), None))
    with closing(journal.open()) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT request FROM attempts").fetchone()

        with pytest.raises(JournalError, match="another process has the journal"):
            journal.forget(lambda text: "PERSON" in text)

    assert journal.forget(lambda text: "PERSON" in text) == 0
    assert b"PERSON" not in journal.path.read_bytes()


def test_a_journal_of_a_later_version_is_refused(journal):
    connection = sqlite3.connect(journal.path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()

    with pytest.raises(JournalError, match="schema version 99, expected 1"):
        answers(journal, [b"key"])


def test_a_file_that_is_no_journal_is_refused_and_left_alone(journal):
    journal.path.write_text("my notes " * 100)

    with pytest.raises(JournalError, match="move it away"):
        answers(journal, [b"key"])
    assert journal.path.read_text() == "my notes " * 100


def test_a_journal_from_before_there_were_versions_keeps_its_answers(journal):
    key = request_key("here", {"model": "m"}, 1)
    connection = sqlite3.connect(journal.path)
    connection.execute(
        "CREATE TABLE attempts (key TEXT NOT NULL, attempt INTEGER NOT NULL, endpoint TEXT, "
        "request TEXT, sent_at REAL, received_at REAL, status INTEGER, body TEXT, "
        "usable INTEGER, PRIMARY KEY (key, attempt)) WITHOUT ROWID"
    )
    rows = [(key.hex(), 1, "no", 0), (key.hex(), 2, "paid", 1)]
    for hexadecimal, attempt, body, usable in rows:
        connection.execute(
            "INSERT INTO attempts VALUES (?, ?, 'here', '{\"model\": \"m\"}', 1, 2, 200, ?, ?)",
            (hexadecimal, attempt, body, usable),
        )
    connection.commit()
    connection.close()

    assert answers(journal, [key]) == {key: "paid"}
    assert answers(journal, [key]) == {key: "paid"}


def test_a_full_disk_reaches_every_sender_as_an_error(journal):
    async def fill():
        async with JournalWriter(journal) as writer:
            await writer.sending(sent())
            writer._connection.execute("PRAGMA max_page_count = 10")
            big = sent()._replace(request="x" * 10_000)
            results = await asyncio.gather(
                *(writer.sending(big) for _ in range(20)), return_exceptions=True
            )
            return [result for result in results if isinstance(result, sqlite3.Error)]

    assert "full" in str(asyncio.run(fill())[0])
    write(journal, (sent(b"later"), received()))
    assert answers(journal, [b"later"]) == {b"later": "the answer"}


def test_one_bad_row_fails_alone(journal):
    async def together():
        async with JournalWriter(journal) as writer:
            bad = sent(b"bad")._replace(request="half \ud83d")
            return await asyncio.gather(
                *(writer.sending(each) for each in (sent(b"1"), bad, sent(b"2"))),
                return_exceptions=True,
            )

    first, failed, second = asyncio.run(together())

    assert isinstance(failed, UnicodeEncodeError)
    assert first != second
    assert journal.spent("loop").requests == 2


def test_many_can_open_a_new_journal_at_once(journal):
    with ThreadPoolExecutor(16) as pool:
        assert set(pool.map(lambda _: journal.spent("loop"), range(64))) == {Cost()}
        list(pool.map(lambda _: journal.open().close(), range(64)))


WRITER = """
import asyncio, os, sys
from pathlib import Path
from llamaduo.service_llm.journal import Journal, Received, Sent
from llamaduo.service_llm.journal_writer import JournalWriter

async def write():
    async with JournalWriter(Journal(Path(sys.argv[1]))) as writer:
        row = await writer.sending(Sent(b"key", "", "e", "m", "t", "{}", 1, 1, 1, 1, None))
        await writer.received(row, Received(200, "kept", "answered", (1, 1), None))
        os.kill(os.getpid(), 9)

asyncio.run(write())
"""


def test_an_answer_survives_the_kill_of_its_process(journal):
    command = [sys.executable, "-c", WRITER, str(journal.path)]

    killed = subprocess.run(command, check=False, env=os.environ)

    assert killed.returncode == -9
    assert answers(journal, [b"key"]) == {b"key": "kept"}
