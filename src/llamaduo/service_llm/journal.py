"""The journal: every request to a service LLM before it is sent, every body as it arrives."""

import hashlib
import json
import sqlite3
import threading
import time
from pathlib import Path
from typing import Any

SCHEMA = """
CREATE TABLE IF NOT EXISTS attempts (
    key TEXT NOT NULL,          -- of the request, see request_key
    attempt INTEGER NOT NULL,   -- 1, 2, … for one key
    endpoint TEXT NOT NULL,
    request TEXT NOT NULL,      -- JSON body
    sent_at REAL NOT NULL,      -- seconds since the epoch
    received_at REAL,
    status INTEGER,             -- HTTP status, NULL while under way or where no answer came
    body TEXT,                  -- as it arrived
    usable INTEGER NOT NULL DEFAULT 0,  -- 1: a whole answer, which is never asked for again
    PRIMARY KEY (key, attempt)
) WITHOUT ROWID;
"""


def request_key(endpoint: str, body: dict[str, Any], repeat: int) -> str:
    """Identity of a request: endpoint, model, messages, parameters and repeat index."""
    canonical = json.dumps([endpoint, body, repeat], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()


class Journal:
    """An SQLite file; a row is on the disk when a method returns.

    Args:
        path: Created with its folder at the first request, readable by its owner alone.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None

    def answer(self, key: str) -> str | None:
        """The body of an earlier whole answer."""
        if self._connection is None and not self._path.exists():
            return None
        row = self._execute("SELECT body FROM attempts WHERE key = ? AND usable = 1", (key,))
        return row[0] if row else None

    def sending(self, key: str, endpoint: str, body: dict[str, Any]) -> int:
        """Enter a request that is about to be sent.

        Returns:
            The number of the attempt.
        """
        row = self._execute(
            "INSERT INTO attempts (key, attempt, endpoint, request, sent_at) "
            "SELECT ?, COALESCE(MAX(attempt), 0) + 1, ?, ?, ? FROM attempts WHERE key = ? "
            "RETURNING attempt",
            (key, endpoint, json.dumps(body, ensure_ascii=False), time.time(), key),
        )
        return int(row[0])

    def received(self, key: str, attempt: int, status: int, body: str, *, usable: bool) -> None:
        """Enter what came back."""
        self._execute(
            "UPDATE attempts SET received_at = ?, status = ?, body = ?, usable = ? "
            "WHERE key = ? AND attempt = ?",
            (time.time(), status, body, int(usable), key, attempt),
        )

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _execute(self, statement: str, values: tuple[Any, ...]) -> Any:
        with self._lock:
            if self._connection is None:
                self._connection = self._open()
            with self._connection:
                return self._connection.execute(statement, values).fetchone()

    def _open(self) -> sqlite3.Connection:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.touch(mode=0o600)
        connection = sqlite3.connect(self._path, timeout=60, check_same_thread=False)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute(SCHEMA)
        return connection
