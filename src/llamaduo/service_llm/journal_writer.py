"""Writing the journal while many requests are under way."""

from __future__ import annotations

import asyncio
import queue
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, Self

from llamaduo.service_llm.journal import Journal, Received, Sent

SWITCH_S = 0.0005


class JournalWriter:
    """Writes in a thread of its own: one commit for all that waits, on disk when a call returns."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._waiting: queue.SimpleQueue[_Write | None] = queue.SimpleQueue()
        self._last_id = 0

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._connection = self._journal.open()
        # A busy sender gives way late: then answers wait in memory, where a crash would lose them.
        self._switch_s = sys.getswitchinterval()
        sys.setswitchinterval(SWITCH_S)
        self._thread = threading.Thread(target=self._write, name="journal", daemon=True)
        self._thread.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._waiting.put(None)
        await asyncio.to_thread(self._thread.join)
        sys.setswitchinterval(self._switch_s)
        self._connection.close()

    async def sending(self, sent: Sent) -> int:
        """Enter a request; the id of its row."""
        # Unique beside other processes too, and in order of time.
        row = self._last_id = max(self._last_id + 1, time.time_ns())
        await self._written(_insertion, (row, *sent, time.time(), 1))
        return row

    async def received(self, row: int, received: Received) -> float:
        """Enter what came of it; when, in seconds since the epoch."""
        at, tokens = time.time(), received.tokens or (None, None)
        await self._written(
            _update,
            (
                row,
                at,
                received.status,
                received.body,
                received.outcome,
                *tokens,
                received.usd,
            ),
        )
        return at

    async def _written(self, statement: Callable[[int], str], values: tuple[Any, ...]) -> None:
        write = _Write(statement, values, self._loop.create_future())
        self._waiting.put(write)
        # What was begun is written even if its sender is cancelled.
        await asyncio.shield(write.done)

    def _write(self) -> None:
        ended = False
        while not ended:
            group = [self._waiting.get()]
            while not self._waiting.empty():
                group.append(self._waiting.get())
            ended = None in group
            writes = [write for write in group if write is not None]
            if writes:
                self._loop.call_soon_threadsafe(self._commit(writes))

    def _commit(self, writes: list[_Write]) -> Callable[[], None]:
        """Write a group; what then tells its senders."""
        try:
            self._connection.execute("BEGIN")
            # One statement for many rows: each gives way to the sending thread, and waits for it.
            for statement in (_insertion, _update):
                rows = [write.values for write in writes if write.statement is statement]
                if rows:
                    values = [value for row in rows for value in row]
                    self._connection.execute(statement(len(rows)), values)
            self._connection.execute("COMMIT")
        except Exception as error:  # whatever it is, the senders wait for it
            failure = error
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            if len(writes) > 1:  # one bad row must not take the others with it
                alone = [self._commit([write]) for write in writes]
                return lambda: _call_each(alone)
            return lambda: writes[0].done.set_exception(failure)
        return lambda: _call_each([partial(write.done.set_result, None) for write in writes])


class _Write(NamedTuple):
    statement: Callable[[int], str]
    """Of so many rows."""
    values: tuple[Any, ...]
    done: asyncio.Future[None]


def _call_each(calls: list[Callable[[], None]]) -> None:
    for call in calls:
        call()


def _marks(columns: int, rows: int) -> str:
    return ", ".join(["(" + ", ".join("?" * columns) + ")"] * rows)


def _insertion(rows: int) -> str:
    columns = ("id", *Sent._fields, "sent_at", "estimated")
    names = ", ".join(columns)
    return f"INSERT INTO attempts ({names}) VALUES {_marks(len(columns), rows)}"


def _update(rows: int) -> str:
    return f"""
        WITH came (row, at, status, body, outcome, prompt, completion, usd)
        AS (VALUES {_marks(8, rows)})
        UPDATE attempts SET
            received_at = came.at, status = came.status, body = came.body, outcome = came.outcome,
            prompt_tokens = COALESCE(came.prompt, prompt_tokens),
            completion_tokens = COALESCE(came.completion, completion_tokens),
            usd = IIF(came.prompt IS NULL, attempts.usd, came.usd),
            estimated = came.prompt IS NULL
        FROM came WHERE id = came.row
    """
