import os
import stat
import subprocess
import sys

from llamaduo.service_llm.journal import Journal, request_key

BODY = {"model": "m", "messages": [{"role": "user", "content": "héllo \ud83d"}]}


def test_only_a_usable_answer_is_given_again(tmp_path):
    journal = Journal(tmp_path / "journal.sqlite")
    first = journal.sending("key", "here", {})
    journal.received("key", first, 500, "busy", usable=False)
    assert journal.answer("key") is None

    second = journal.sending("key", "here", {})
    journal.received("key", second, 200, "the answer", usable=True)

    assert (first, second) == (1, 2)
    assert journal.answer("key") == "the answer"
    journal.close()


def test_the_key_tells_apart_what_differs_and_nothing_else():
    key = request_key("here", BODY, 1)

    assert key == request_key("here", dict(reversed(BODY.items())), 1)
    assert key not in {
        request_key("there", BODY, 1),
        request_key("here", {**BODY, "temperature": 0}, 1),
        request_key("here", BODY, 2),
    }


def test_a_journal_that_nobody_used_leaves_no_file(tmp_path):
    journal = Journal(tmp_path / "journal.sqlite")

    assert journal.answer("key") is None
    assert list(tmp_path.iterdir()) == []


def test_only_its_owner_can_read_the_file(tmp_path):
    journal = Journal(tmp_path / "journal.sqlite")
    journal.sending("key", "here", {})

    assert stat.S_IMODE((tmp_path / "journal.sqlite").stat().st_mode) == 0o600
    journal.close()


WRITER = """
import os, sys
from pathlib import Path
from llamaduo.service_llm.journal import Journal
journal = Journal(Path(sys.argv[1]))
journal.received("key", journal.sending("key", "here", {}), 200, "kept", usable=True)
os.kill(os.getpid(), 9)
"""


def test_an_answer_survives_the_kill_of_its_process(tmp_path):
    path = tmp_path / "journal.sqlite"

    killed = subprocess.run([sys.executable, "-c", WRITER, str(path)], check=False, env=os.environ)

    assert killed.returncode == -9
    journal = Journal(path)
    assert journal.answer("key") == "kept"
    journal.close()
