"""Who computes the local LLM's responses, as an input of the catalog."""

import json
from dataclasses import replace
from typing import Any, NoReturn

from kedro.io import AbstractDataset, DatasetError
from kedro_datasets._typing import JSONPreview

from llamaduo.datasets.service_llm import ServiceLLMDataset
from llamaduo.local_llm.engines import EndpointEngine, InferenceEngine, TransformersEngine
from llamaduo.service_llm.budget import Price
from llamaduo.service_llm.endpoints import Accepts

NEEDED = {"transformers": [], "endpoint": ["base_url", "model"]}
"""By engine: what goes with it."""
FREE = Price(input=0, output=0)
"""The server is the user's own."""


class InferenceDataset(AbstractDataset[NoReturn, InferenceEngine]):
    """This process, or a vLLM server that loads the adapter of each iteration.

    ```yaml
    inference:
      type: llamaduo.datasets.InferenceDataset
      engine: transformers
      journal: {filepath: data/journal.sqlite}
    ```

    ```yaml
    inference:
      type: llamaduo.datasets.InferenceDataset
      engine: endpoint
      base_url: http://127.0.0.1:8000/v1
      model: meta-llama/Llama-3.2-1B-Instruct
      journal: {filepath: data/journal.sqlite}
      limits: {concurrency: 256}
    ```

    Args:
        engine: ``transformers``, this process, or ``endpoint``, a server.
        journal: ``filepath`` of the SQLite file that keeps what the server answers.
        base_url: Of the server.
        model: The base model's name at the server.
        limits: Fields of ``Limits``, as of a ``ServiceLLMDataset``.
        credentials: ``api_key``; a server on loopback needs none.
    """

    def __init__(
        self,
        *,
        engine: str,
        journal: dict[str, str],
        base_url: str | None = None,
        model: str | None = None,
        limits: dict[str, Any] | None = None,
        credentials: dict[str, str] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        given = [name for name, value in {"base_url": base_url, "model": model}.items() if value]
        if given != NEEDED.get(engine):
            raise DatasetError(
                "inference has engine: transformers with neither base_url nor model, or engine: "
                f"endpoint with both; here it has engine: {engine} with "
                f"{' and '.join(given) or 'neither'}"
            )
        self._server = None
        if base_url and model:
            self._server = ServiceLLMDataset(
                base_url=base_url,
                model=model,
                journal=journal,
                limits=limits,
                accepts=Accepts().model_dump(),
                privacy="off",  # surrogates would change what is measured
                credentials=credentials,
            )
        self.metadata = metadata

    def load(self) -> InferenceEngine:
        """The engine, ready to answer.

        Raises:
            DatasetError: The endpoint or its key cannot be used.
        """
        if self._server is None:
            return TransformersEngine()
        return EndpointEngine(replace(self._server.load(), price=FREE, verbatim=True))

    def save(self, data: NoReturn) -> NoReturn:
        """The engine is an input."""
        raise DatasetError("inference is never written")

    def preview(self) -> JSONPreview:
        """The engine, for Kedro-Viz; never a key."""
        if self._server is None:
            return JSONPreview(json.dumps(self._describe()))
        facts = self._server.facts()
        shown = {name: facts[name] for name in ("model", "base_url", "limits")}
        return JSONPreview(json.dumps({"engine": "endpoint", **shown}))

    def _describe(self) -> dict[str, Any]:
        if self._server is None:
            return {"engine": "transformers"}
        return {"engine": "endpoint", **self._server._describe()}
