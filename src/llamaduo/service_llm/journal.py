"""The journal: every request to a service LLM before it is sent, every body as it arrives.

It is the one account of tokens and money over all service LLMs of a data root.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from llamaduo.files import make_folder
from llamaduo.service_llm.budget import Cost

SCHEMA_VERSION = 1
SCHEMA = """
CREATE TABLE attempts (
    id INTEGER PRIMARY KEY,
    key BLOB NOT NULL,            -- of the request, see request_key
    account TEXT NOT NULL,        -- the loop that pays
    endpoint TEXT NOT NULL,
    model TEXT NOT NULL,
    purpose TEXT NOT NULL,        -- such as: judging
    request TEXT NOT NULL,        -- JSON body, as sent
    prompt_bytes INTEGER NOT NULL,     -- of all messages, UTF-8
    expected_tokens INTEGER NOT NULL,  -- of the answer, as the sender guessed
    sent_at REAL NOT NULL,        -- seconds since the epoch
    received_at REAL,             -- NULL while under way, and where no answer came
    status INTEGER,               -- HTTP status
    body TEXT,                    -- as it arrived
    outcome TEXT,                 -- answered, forgotten, or the name of the failure
    prompt_tokens REAL NOT NULL,
    completion_tokens REAL NOT NULL,
    usd REAL,                     -- NULL: the price is unknown
    estimated INTEGER NOT NULL    -- 1: the endpoint has not said what it counted
);
CREATE INDEX attempts_by_key ON attempts (key);
CREATE INDEX attempts_by_account ON attempts (account);
"""
# Before there were versions: the whole answers are kept, what they cost is not known.
FROM_VERSION_0 = """
INSERT INTO attempts SELECT
    NULL, from_hex(key), '', endpoint, COALESCE(json_extract(request, '$.model'), ''), '', request,
    0, 0, sent_at, received_at, status, body, 'answered', 0, 0, NULL, 1
FROM attempts_0 WHERE usable = 1
"""
SQLITE = b"SQLite format 3\0"
ANSWERED = "answered"
TAKE_TEXTS_OUT = "UPDATE attempts SET key = x'', request = '', body = NULL, outcome = 'forgotten'"
WHERE_WANTED = "WHERE is_wanted(request) OR is_wanted(COALESCE(body, ''))"
CHUNK = 500
PATIENCE_MS = 1000
"""With another process that reads or writes while texts are taken out."""
OPENING = threading.Lock()


class JournalError(Exception):
    """The journal's file cannot be used."""


class Sent(NamedTuple):
    """A request about to be sent; the figures are estimates."""

    key: bytes
    account: str
    endpoint: str
    model: str
    purpose: str
    request: str
    prompt_bytes: int
    expected_tokens: int
    prompt_tokens: float
    completion_tokens: float
    usd: float | None


class Received(NamedTuple):
    """What came of it; tokens are None where the endpoint said nothing, and the estimate stays."""

    status: int | None
    body: str | None
    outcome: str
    tokens: tuple[int, int] | None
    usd: float | None


class Calibration(NamedTuple):
    """What earlier answers teach about the cost of requests with the same purpose."""

    tokens_per_byte: float
    tokens_per_expected: float
    seconds: float
    """From request to answer."""


def request_key(endpoint: str, body: dict[str, Any], repeat: int) -> bytes:
    """Identity of a request: endpoint, model, messages, parameters and repeat index."""
    canonical = json.dumps([endpoint, body, repeat], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).digest()


def is_journal(path: Path) -> bool:
    """Whether a file is a journal, under whatever name; nothing of it is changed.

    Raises:
        JournalError: Another process has locked it, so that it cannot be told.
    """
    with path.open("rb") as file:
        if file.read(len(SQLITE)) != SQLITE:
            return False
    with closing(_read_only(path)) as connection:
        try:
            columns = connection.execute("SELECT name FROM pragma_table_info('attempts')")
            return {("request",), ("body",)} <= set(columns)
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorcode == sqlite3.SQLITE_BUSY:
                raise JournalError(
                    f"another process has locked {path}; end it, then run this once more"
                ) from error
            return False  # it only begins like one


def _read_only(path: Path) -> sqlite3.Connection:
    uri = f"{path.absolute().as_uri()}?mode=ro"
    return sqlite3.connect(uri, uri=True, timeout=PATIENCE_MS / 1000)


class Journal:
    """An SQLite file.

    Args:
        path: Created with its folder at the first request, readable by its owner alone.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def answers(self, keys: Sequence[bytes]) -> Iterator[tuple[bytes, str, float]]:
        """Key, body and time of the requests that were answered, read a piece at a time.

        Raises:
            JournalError: The file is no journal, or one of a later version.
        """
        if not self.path.exists():
            return
        with closing(self.open()) as connection:
            for start in range(0, len(keys), CHUNK):
                chunk = keys[start : start + CHUNK]
                marks = ",".join("?" * len(chunk))
                yield from connection.execute(
                    "SELECT key, body, received_at FROM attempts "
                    f"WHERE key IN ({marks}) AND outcome = '{ANSWERED}' GROUP BY key",
                    chunk,
                )

    def spent(self, account: str) -> Cost:
        """What an account has spent; an attempt without an answer counts at its estimate."""
        row = self._row(
            "SELECT SUM(usd), SUM(prompt_tokens + completion_tokens), COUNT(*) "
            "FROM attempts WHERE account = ?",
            (account,),
        )
        return Cost(*(value or 0 for value in row)) if row else Cost()

    def models(self, account: str) -> set[str]:
        """The models that an account has asked."""
        if not self.path.exists():
            return set()
        with closing(self.open()) as connection:
            rows = connection.execute(
                "SELECT DISTINCT model FROM attempts WHERE account = ?", (account,)
            )
            return {model for (model,) in rows}

    def calibration(self, endpoint: str, model: str, purpose: str) -> Calibration | None:
        """Means over the answers so far; None where there are none."""
        row = self._row(
            "SELECT SUM(prompt_tokens) / SUM(prompt_bytes), "
            "SUM(completion_tokens) / SUM(expected_tokens), AVG(received_at - sent_at) "
            "FROM attempts WHERE endpoint = ? AND model = ? AND purpose = ? "
            f"AND outcome = '{ANSWERED}' AND estimated = 0",
            (endpoint, model, purpose),
        )
        return Calibration(*row) if row and None not in row else None

    def count(self, is_wanted: Callable[[str], bool]) -> int:
        """How many attempts hold a text, in their request or in what came of it.

        Of a journal of any version; nothing is changed.
        """
        with closing(_read_only(self.path)) as connection:
            connection.create_function("is_wanted", 1, is_wanted)
            (count,) = connection.execute(
                f"SELECT COUNT(*) FROM attempts {WHERE_WANTED}"
            ).fetchone()
            return int(count)

    def forget(self, is_wanted: Callable[[str], bool]) -> int:
        """Take the texts out of the attempts that hold one of them; what they cost stays.

        Such an attempt never answers a request again. Nothing of it is left in the file, nor in
        those that SQLite keeps beside it; also not of what an interrupted call had begun.

        Returns:
            How many attempts they were.

        Raises:
            JournalError: Another process reads or writes the journal.
        """
        with closing(self.open()) as connection:
            connection.create_function("is_wanted", 1, is_wanted)
            connection.execute(f"PRAGMA busy_timeout = {PATIENCE_MS}")
            connection.execute("PRAGMA secure_delete = ON")
            forgotten = connection.execute(f"{TAKE_TEXTS_OUT} {WHERE_WANTED}").rowcount
            # Earlier updates have left copies in the free space of pages.
            connection.execute("VACUUM")
            (is_busy, *_) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if is_busy:
            raise JournalError(
                f"another process has the journal {self.path} open, so that texts that were taken "
                "out may still stand beside it; end that process, then run this once more"
            )
        return forgotten

    def open(self) -> sqlite3.Connection:
        """A connection to the file, which is created, or brought to the present schema."""
        make_folder(self.path.parent)
        self.path.touch(mode=0o600)
        # Statements commit by themselves, but for the writer's groups.
        connection = sqlite3.connect(
            self.path, timeout=60, check_same_thread=False, isolation_level=None
        )
        try:
            with OPENING:  # turning WAL on does not wait for another connection that does it
                connection.execute("PRAGMA journal_mode=WAL")
                connection.execute("PRAGMA synchronous=FULL")
                connection.execute("BEGIN IMMEDIATE")
                self._bring_to_schema(connection)
                connection.execute("COMMIT")
        except sqlite3.DatabaseError as error:
            connection.close()
            raise JournalError(
                f"the journal {self.path} cannot be used ({error}); it holds paid answers, so move "
                "it away rather than delete it"
            ) from error
        except JournalError:
            connection.close()
            raise
        return connection

    def _bring_to_schema(self, connection: sqlite3.Connection) -> None:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version == SCHEMA_VERSION:
            return
        known = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
        if version or not known <= {"attempts"}:
            raise JournalError(
                f"the journal {self.path} has schema version {version}, expected {SCHEMA_VERSION}; "
                "run the llamaduo that wrote it, or move the file away to begin a new one"
            )
        if known:
            connection.execute("ALTER TABLE attempts RENAME TO attempts_0")
        for statement in SCHEMA.split(";"):
            connection.execute(statement)
        if known:
            connection.create_function("from_hex", 1, bytes.fromhex)
            connection.execute(FROM_VERSION_0)
            connection.execute("DROP TABLE attempts_0")
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    def _row(self, statement: str, values: tuple[Any, ...]) -> Any:
        if not self.path.exists():
            return None
        with closing(self.open()) as connection:
            return connection.execute(statement, values).fetchone()
