"""Who scores: one service LLM, or several."""

from dataclasses import dataclass

from llamaduo.service_llm.client import ServiceLLM


@dataclass(frozen=True)
class Judge:
    """A jury of one or more service LLMs; each scores every response."""

    jury: tuple[ServiceLLM, ...]

    @property
    def models(self) -> list[str]:
        """Model ids, in the order of the catalog."""
        return [member.model for member in self.jury]
