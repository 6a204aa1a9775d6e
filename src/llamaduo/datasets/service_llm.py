"""A service LLM as an input of the catalog."""

from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

from kedro.io import AbstractDataset, DatasetError

from llamaduo.service_llm.client import ServiceLLM
from llamaduo.service_llm.journal import Journal

STAND_IN = "stand-in"
LOOPBACK = {"localhost", "127.0.0.1", "::1"}


class ServiceLLMDataset(AbstractDataset[NoReturn, ServiceLLM]):
    """A client of an OpenAI-compatible endpoint, or of the embedded stand-in.

    ```yaml
    service_llm:
      type: llamaduo.datasets.ServiceLLMDataset
      base_url: https://api.openai.com/v1
      model: gpt-4o-2024-08-06
      journal: {filepath: data/journal.sqlite}
      credentials: openai
    ```

    Args:
        base_url: The endpoint, or ``stand-in``: a server on loopback that starts with the first
            load and ends with the process.
        model: Model id.
        journal: ``filepath`` of the SQLite file that keeps every request and reply.
        concurrency: The most requests under way at once.
        timeout_s: Seconds that one request may take.
        credentials: ``api_key``; endpoints on loopback need none.
    """

    def __init__(
        self,
        *,
        base_url: str,
        model: str,
        journal: dict[str, str],
        concurrency: int = 16,
        timeout_s: float = 120.0,
        credentials: dict[str, str] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        self._base_url = base_url
        self._model = model
        self._journal = Path(journal["filepath"])
        self._concurrency = concurrency
        self._timeout_s = timeout_s
        self._api_key = ((credentials or {}).get("api_key") or "").strip()
        self.metadata = metadata

    def load(self) -> ServiceLLM:
        """A client that is ready to send.

        Raises:
            DatasetError: The endpoint needs a key and there is none.
        """
        host = urlsplit(self._base_url).hostname
        if self._base_url != STAND_IN and not self._base_url.startswith(("http://", "https://")):
            raise DatasetError(
                f"base_url is {self._base_url!r}, expected one that begins with http:// or "
                f"https://, or {STAND_IN!r}"
            )
        if self._base_url != STAND_IN and host not in LOOPBACK and not self._api_key:
            raise DatasetError(
                f"{host} needs a key: set the environment variable that the environment's "
                "credentials.yml names (conf/openai: OPENAI_API_KEY)"
            )
        endpoint = url = self._base_url
        if endpoint == STAND_IN:
            from llamaduo.stand_in.server import edition, running_stand_in

            # Its port differs from run to run, and what it answers from edition to edition.
            endpoint, url = f"{STAND_IN}-{edition()}", running_stand_in().base_url
        return ServiceLLM(
            endpoint=endpoint,
            base_url=url,
            model=self._model,
            api_key=self._api_key or "none",
            journal=Journal(self._journal),
            concurrency=self._concurrency,
            timeout_s=self._timeout_s,
        )

    def save(self, data: NoReturn) -> NoReturn:
        """A service LLM is an input."""
        raise DatasetError("a service LLM is never written")

    def _describe(self) -> dict[str, Any]:
        return {"base_url": self._base_url, "model": self._model}
