"""Prompt texts as inputs of the catalog."""

import json
from pathlib import Path
from typing import Any, NoReturn

from kedro.io import AbstractDataset, DatasetError
from kedro_datasets._typing import JSONPreview

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
        self._filepath = Path(filepath)
        self._placeholders = set(placeholders)
        self.metadata = metadata

    def load(self) -> str:
        """The text.

        Raises:
            DatasetError: A placeholder is missing or unknown.
        """
        text = self._filepath.read_text(encoding="utf-8")
        named = placeholders_of(text)
        if named != self._placeholders:
            raise DatasetError(
                f"{self._filepath} has the placeholders {sorted(named)}, expected "
                f"{sorted(self._placeholders)}: write each as {{{{ name }}}}"
            )
        return text

    def save(self, data: NoReturn) -> NoReturn:
        """A prompt text is an input."""
        raise DatasetError("a prompt text is never written")

    def preview(self) -> JSONPreview:
        """The text line by line, for Kedro-Viz."""
        return JSONPreview(json.dumps(self.load().splitlines(), ensure_ascii=False))

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._filepath)}


class PromptFolderDataset(AbstractDataset[NoReturn, dict[str, str]]):
    """The text files of a folder as prompts, each under the name of its file.

    ```yaml
    synthesis_prompts:
      type: llamaduo.datasets.PromptFolderDataset
      filepath: conf/base/prompts/synthesis
      placeholders: [seed, pairs, request]
    ```

    Args:
        filepath: A folder; of its files those that end in ``.txt`` are read.
        placeholders: Names that each text must hold, and no others.
    """

    def __init__(
        self, *, filepath: str, placeholders: list[str], metadata: dict[str, Any] | None = None
    ) -> None:
        self._filepath = Path(filepath)
        self._placeholders = placeholders
        self.metadata = metadata

    def load(self) -> dict[str, str]:
        """Name and text of each prompt.

        Raises:
            DatasetError: There is none, or one lacks a placeholder or has an unknown one.
        """
        files = sorted(self._filepath.glob("*.txt"))
        if not files:
            raise DatasetError(f"{self._filepath} holds no prompt text; expected files like a.txt")
        return {
            file.stem: PromptDataset(filepath=str(file), placeholders=self._placeholders).load()
            for file in files
        }

    def save(self, data: NoReturn) -> NoReturn:
        """A prompt text is an input."""
        raise DatasetError("a prompt text is never written")

    def preview(self) -> JSONPreview:
        """The texts line by line, for Kedro-Viz."""
        lines = {name: text.splitlines() for name, text in self.load().items()}
        return JSONPreview(json.dumps(lines, ensure_ascii=False))

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._filepath)}
