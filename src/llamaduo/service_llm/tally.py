"""What a person sees of requests: what they will about cost, how far they are, what was odd."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from llamaduo.progress import ProgressDisplay
from llamaduo.service_llm.answers import Reply
from llamaduo.service_llm.budget import Account, Budget, Cost, Estimate

if TYPE_CHECKING:
    from llamaduo.service_llm.client import ServiceLLM

logger = logging.getLogger(__name__)

SHOWN_EVERY_S = 0.1


class Tally:
    """What the progress display says beside the count."""

    def __init__(
        self, display: ProgressDisplay, total: int, known: int, account: Account, budget: Budget
    ) -> None:
        self._display = display
        self._total = total
        self._known = self._done = known
        self._caps = account.caps
        self._budget = budget
        self._failures: Counter[str] = Counter()
        self._models: set[str] = set()
        self._tokens_before = budget.spent.tokens
        self._began = self._shown = time.perf_counter()

    def count(self, reply: Reply) -> None:
        """Take one more reply into account."""
        self._done += 1
        if reply.model:
            self._models.add(reply.model)
        if reply.failure:
            self._failures[f"{reply.failure}: {reply.detail}"[:200]] += 1
        now = time.perf_counter()
        if self._done == self._total or now - self._shown >= SHOWN_EVERY_S:
            self._shown = now
            self._display.show(self._done, self._total, self._note(now), begun_at=self._known)

    def say_what_was_odd(self, model: str) -> None:
        """Name each cause of failure with its count, and models that were not asked for."""
        for cause, count in self._failures.most_common(5):
            logger.warning("%d failed, %s", count, cause)
        for other in sorted(self._models):
            if model not in other and other not in model:
                logger.warning("asked for the model %s, the endpoint names %s", model, other)

    def _note(self, now: float) -> str:
        spent = self._budget.spent
        seconds = now - self._began
        parts = [
            f"{self._failures.total()} failed" if self._failures else "",
            f"{self._known} from the journal" if self._known else "",
            f"{(spent.tokens - self._tokens_before) / max(seconds, 1e-3):.0f} tokens/s",
            _of_cap("${:.2f}", spent.usd, self._caps.usd) if spent.usd else "",
            _of_cap("{:.0f} tokens", spent.tokens, self._caps.tokens) if self._caps.tokens else "",
            _of_cap("{} requests", spent.requests, self._caps.requests)
            if self._caps.requests
            else "",
        ]
        return ", ".join(part for part in parts if part)


def spent_by(account: Account, models: Iterable[ServiceLLM]) -> dict[str, Any]:
    """What an account has paid so far, over all of these models.

    Returns:
        ``account``; ``usd``, ``tokens`` and ``requests``; ``unpriced``, the models that were asked
        though their price is unknown, and whose requests count as 0 dollars.
    """
    models = list(models)
    journals = {model.journal.path: model.journal for model in models}
    spent = sum((journal.spent(account.name) for journal in journals.values()), start=Cost())
    asked = {name for journal in journals.values() for name in journal.models(account.name)}
    unpriced = {model.model for model in models if model.price is None}
    return {"account": account.name, **spent._asdict(), "unpriced": sorted(asked & unpriced)}


def _of_cap(form: str, value: float, cap: float | None) -> str:
    return form.format(value) + (f" of {form.format(cap)}" if cap is not None else "")


def announce(what: str, estimate: Estimate, budget: Budget, account: Account) -> None:
    """Say what is about to be spent."""
    money = "price unknown" if estimate.usd is None else f"${estimate.usd:.4f}"
    so_far = f"; spent so far ${budget.spent.usd:.4f}" if account.name else ""
    logger.info(
        "%s: about %d requests, %.0f tokens, %s, %.0f s%s",
        what,
        estimate.requests,
        estimate.tokens,
        money,
        estimate.seconds,
        so_far,
    )
    after = budget.spent + Cost(estimate.usd or 0.0, estimate.tokens, estimate.requests)
    for name, value in after._asdict().items():
        cap = getattr(account.caps, name)
        if cap is not None and value > cap:
            logger.warning(
                "%s: the cap budget.%s of %g will probably end it (%g with this)",
                what,
                name,
                cap,
                value,
            )
