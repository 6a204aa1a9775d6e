"""The judge as an input of the catalog."""

import json
from typing import Any, NoReturn

from kedro.io import AbstractDataset, DatasetError
from kedro_datasets._typing import JSONPreview

from llamaduo.datasets.service_llm import ServiceLLMDataset
from llamaduo.service_llm.jury import Judge

SHARED = ("journal", "prices", "privacy")


class JudgeDataset(AbstractDataset[NoReturn, Judge]):
    """A service LLM that scores, or a jury of several.

    ```yaml
    judge:
      type: llamaduo.datasets.JudgeDataset
      base_url: https://api.openai.com/v1
      model: gpt-4o-2024-08-06
      credentials: openai
      journal: {filepath: data/journal.sqlite}
      jury:
        second: {base_url: http://127.0.0.1:8000/v1, model: another-model}
    ```

    Args:
        jury: Further members by any name, each with the arguments of a ``ServiceLLMDataset``;
            journal, prices and privacy are the first one's unless they are said.
        first: The arguments of a ``ServiceLLMDataset``.
    """

    def __init__(
        self,
        *,
        jury: dict[str, dict[str, Any]] | None = None,
        metadata: dict[str, Any] | None = None,
        **first: Any,
    ) -> None:
        shared = {name: first[name] for name in SHARED if name in first}
        others = ({**shared, **member} for member in (jury or {}).values())
        self._members = [ServiceLLMDataset(**member) for member in (first, *others)]
        self.metadata = metadata

    def load(self) -> Judge:
        """The jury, ready to send.

        Raises:
            DatasetError: An endpoint or a key cannot be used, or a model is named twice.
        """
        judge = Judge(tuple(member.load() for member in self._members))
        if len(set(judge.models)) < len(judge.models):
            raise DatasetError(
                f"the jury names a model twice: {', '.join(judge.models)}; for repeated judgements "
                "set evaluation.judgements_per_response"
            )
        return judge

    def unchecked(self) -> Judge:
        """A jury for estimates; whether it could be asked is not looked at."""
        return Judge(tuple(member.unchecked() for member in self._members))

    def save(self, data: NoReturn) -> NoReturn:
        """A judge is an input."""
        raise DatasetError("a judge is never written")

    def preview(self) -> JSONPreview:
        """Each member and its terms, for Kedro-Viz; never a key."""
        return JSONPreview(json.dumps([member.facts() for member in self._members]))

    def _describe(self) -> dict[str, Any]:
        first, *others = (member._describe() for member in self._members)
        return {**first, "jury": others} if others else first
