"""Who scores: one service LLM, or several."""

import re
from dataclasses import dataclass

from llamaduo.service_llm.client import ServiceLLM

DATED = re.compile(r"-(latest|\d{4}-\d\d-\d\d|\d{8})\Z")
"""What providers add to the name of a model."""


def are_one_model(one: str, other: str) -> bool:
    """Whether two model ids name the same model, dated or not."""
    return DATED.sub("", one) == DATED.sub("", other)


@dataclass(frozen=True)
class Judge:
    """A jury of one or more service LLMs; each scores every response."""

    jury: tuple[ServiceLLM, ...]

    @property
    def models(self) -> list[str]:
        """Model ids, in the order of the catalog."""
        return [member.model for member in self.jury]
