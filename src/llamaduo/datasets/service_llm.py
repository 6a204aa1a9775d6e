"""A service LLM as an input of the catalog."""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

from kedro.io import AbstractDataset, DatasetError
from kedro_datasets._typing import JSONPreview
from pydantic import SecretStr

from llamaduo.files import on_this_machine
from llamaduo.mistakes import validated
from llamaduo.service_llm.budget import PriceList
from llamaduo.service_llm.client import ServiceLLM
from llamaduo.service_llm.endpoints import Accepts, Limits, accepted_by
from llamaduo.service_llm.journal import Journal
from llamaduo.service_llm.privacy import PrivacyGate, PrivacySettings

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
      limits: {concurrency: 16, requests_per_minute: 500}
      credentials: openai
    ```

    Args:
        base_url: The endpoint, or ``stand-in``: a server on loopback that starts with the first
            load and ends with the process.
        model: Model id.
        journal: ``filepath`` of the SQLite file that keeps every request and reply.
        limits: Fields of ``Limits``: ``concurrency``, ``timeout_s``, ``deadline_s``,
            ``attempts``, ``requests_per_minute``, ``tokens_per_minute``.
        accepts: Fields of ``Accepts`` that differ from what ``endpoints.py`` knows of the model's
            family, such as ``{json_schema: true}``.
        prices: A ``PriceList``.
        privacy: ``PrivacySettings``, or its ``detect`` alone.
        credentials: ``api_key``; endpoints on loopback need none.
    """

    def __init__(
        self,
        *,
        base_url: str,
        model: str,
        journal: dict[str, str],
        limits: dict[str, Any] | None = None,
        accepts: dict[str, Any] | None = None,
        prices: dict[str, Any] | None = None,
        privacy: dict[str, Any] | str | bool = "patterns",
        credentials: dict[str, str] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        self._base_url = base_url.rstrip("/")
        self._model = model
        self._journal = on_this_machine(journal["filepath"], "the journal (SQLite)")
        self._limits = validated(Limits, limits or {}, "limits")
        known = accepted_by(model).model_dump()
        self._accepts = validated(Accepts, {**known, **(accepts or {})}, "accepts")
        priced = validated(PriceList, prices, "prices").usd_per_million_tokens if prices else {}
        self._price = priced.get(model)
        self._privacy = validated(PrivacySettings, privacy, "privacy")
        self._api_key = SecretStr(((credentials or {}).get("api_key") or "").strip())
        self.metadata = metadata

    def load(self) -> ServiceLLM:
        """A client that is ready to send.

        Raises:
            DatasetError: The endpoint is no URL, or its key is missing or cannot be a key; or what
                finds names is not installed.
        """
        self._refuse_bad_endpoint()
        if self._privacy.detect == "presidio":
            _refuse_missing_model(self._privacy.model)
        return self.unchecked()

    def unchecked(self) -> ServiceLLM:
        """A client for estimates; whether it could send is not looked at."""
        endpoint = url = self._base_url
        if endpoint == STAND_IN:
            from llamaduo.stand_in.server import edition, running_stand_in

            # Its port differs from run to run, and what it answers from edition to edition.
            endpoint, url = f"{STAND_IN}-{edition()}", running_stand_in().base_url
        return ServiceLLM(
            endpoint=endpoint,
            base_url=url,
            model=self._model,
            api_key=self._api_key if self._api_key else SecretStr("none"),
            journal=Journal(self._journal),
            accepts=self._accepts,
            limits=self._limits,
            price=self._price,
            gate=PrivacyGate(self._privacy),
        )

    def save(self, data: NoReturn) -> NoReturn:
        """A service LLM is an input."""
        raise DatasetError("a service LLM is never written")

    def preview(self) -> JSONPreview:
        """Who answers and on which terms, for Kedro-Viz; never the key."""
        return JSONPreview(json.dumps(self.facts()))

    def facts(self) -> dict[str, Any]:
        """What may be shown of the entry: a URL without user and query, and no credentials."""
        url = urlsplit(self._base_url)
        return {
            "model": self._model,
            "base_url": url._replace(netloc=url.netloc.rpartition("@")[2], query="").geturl(),
            "price": self._price.model_dump() if self._price else None,
            "limits": self._limits.model_dump(),
            "accepts": self._accepts.model_dump(mode="json"),
            "privacy": self._privacy.model_dump(mode="json"),
        }

    def _refuse_bad_endpoint(self) -> None:
        if self._base_url == STAND_IN:
            return
        url = urlsplit(self._base_url)
        if url.scheme not in {"http", "https"} or not url.hostname:
            raise DatasetError(
                f"base_url is {self._base_url!r}, expected one that begins with http:// or "
                f"https://, or {STAND_IN!r}"
            )
        if url.username or url.password or url.query:
            raise DatasetError(
                f"base_url of {url.hostname} carries a user, a password or a query, which logs and "
                "Kedro-Viz would show; keys belong into credentials.yml"
            )
        key = self._api_key.get_secret_value()
        if not key and url.hostname not in LOOPBACK:
            raise DatasetError(
                f"{url.hostname} needs a key: name its credentials in the entry (credentials: "
                "openai), and set the variable that conf/base/credentials.yml reads it from "
                "(OPENAI_API_KEY)"
            )
        if not (key.isascii() and key.isprintable()) or " " in key:
            raise DatasetError(
                f"the api_key for {url.hostname} holds white space or a character that no key has; "
                "copy it anew"
            )

    def _describe(self) -> dict[str, Any]:
        return {
            "base_url": self._base_url,
            "model": self._model,
            "privacy": self._privacy.model_dump(),
        }


def _refuse_missing_model(name: str) -> None:
    """Presidio would try to download it."""
    if find_spec("presidio_analyzer") is None:
        raise DatasetError(
            "privacy: detect is presidio, and the extra is not installed: pip install -e "
            "'.[pii]' in the project's folder, or set detect to patterns"
        )
    if find_spec(name) is None and not Path(name).is_dir():
        raise DatasetError(
            f"privacy: there is no spaCy model {name!r}; install it (python -m spacy download "
            f"{name}), or name another package or folder as the model"
        )
