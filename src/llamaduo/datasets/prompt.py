"""Prompt texts."""

from pathlib import Path
from typing import Any, NoReturn

from kedro.io import AbstractDataset, DatasetError

from llamaduo.service_llm.text import placeholders_of


class PromptDataset(AbstractDataset[NoReturn, str]):
    """A text with ``{{ placeholders }}``, checked when it is loaded.

    ```yaml
    judge_prompt:
      type: llamaduo.datasets.PromptDataset
      filepath: conf/base/prompts/judge.txt
      placeholders: [case]
    ```

    Args:
        filepath: UTF-8.
        placeholders: Names that the text must hold, and no others.
    """

    def __init__(
        self, *, filepath: str, placeholders: list[str], metadata: dict[str, Any] | None = None
    ) -> None:
        self._path = Path(filepath)
        self._placeholders = set(placeholders)
        self.metadata = metadata

    def load(self) -> str:
        """The text.

        Raises:
            DatasetError: A placeholder is missing or unknown.
        """
        text = self._path.read_text(encoding="utf-8")
        named = placeholders_of(text)
        if named != self._placeholders:
            raise DatasetError(
                f"{self._path} has the placeholders {sorted(named)}, expected "
                f"{sorted(self._placeholders)}: write each as {{{{ name }}}}"
            )
        return text

    def save(self, data: NoReturn) -> NoReturn:
        """A prompt text is an input."""
        raise DatasetError("a prompt text is never written")

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._path)}
