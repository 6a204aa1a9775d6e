"""The base model as an input of the catalog."""

import json
from pathlib import Path
from typing import Any, NoReturn

from kedro.io import AbstractDataset, DatasetError
from kedro_datasets._typing import JSONPreview

from llamaduo.local_llm.base_model import BaseModelSpec


class BaseModelDataset(AbstractDataset[NoReturn, BaseModelSpec]):
    """Which model is fine-tuned: a local folder or an id on the Hugging Face hub.

    ```yaml
    base_model:
      type: llamaduo.datasets.BaseModelDataset
      filepath: data/06_models/smollm2-135m-instruct
    ```

    ```yaml
    base_model:
      type: llamaduo.datasets.BaseModelDataset
      model_id: HuggingFaceTB/SmolLM2-1.7B-Instruct
      revision: 0123456789abcdef0123456789abcdef01234567
      load_in_4bit: true
    ```

    Args:
        filepath: Folder in the layout of ``save_pretrained``.
        model_id: ``organisation/name`` on the hub. It stands in for a folder, so that an
            environment that names it need not take back the folder that it inherits.
        revision: Commit of the model on the hub.
        load_in_4bit: QLoRA: train on NF4 weights (bitsandbytes).
    """

    def __init__(
        self,
        *,
        filepath: str | None = None,
        model_id: str | None = None,
        revision: str | None = None,
        load_in_4bit: bool = False,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        name_or_path = model_id or filepath
        if name_or_path is None:
            raise DatasetError("a base model has a filepath or a model_id, and this entry neither")
        self._folder = None if model_id else Path(name_or_path)
        self._spec = BaseModelSpec(
            name_or_path=name_or_path, revision=revision, load_in_4bit=load_in_4bit
        )
        self.metadata = metadata

    def load(self) -> BaseModelSpec:
        """What to load; the weights are read where they are used.

        Raises:
            DatasetError: The folder holds no model.
        """
        if self._folder and not (self._folder / "config.json").exists():
            raise DatasetError(
                f"no model in {self._folder}: expected config.json, *.safetensors and a tokenizer. "
                "`make install` builds the demo's models; for your own give its folder as filepath "
                "or its hub id as model_id."
            )
        return self._spec

    def save(self, data: NoReturn) -> NoReturn:
        """The base model is an input."""
        raise DatasetError("the base model is never written")

    def preview(self) -> JSONPreview:
        """Which model, and of a folder also what its config.json says, for Kedro-Viz."""
        shown = self._describe()
        if self._folder:
            self.load()  # says what is wrong with a folder that holds no model
            config = json.loads((self._folder / "config.json").read_text(encoding="utf-8"))
            shown = {**shown, "config": config}
        return JSONPreview(json.dumps(shown))

    def _describe(self) -> dict[str, Any]:
        return vars(self._spec)
