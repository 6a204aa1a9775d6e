"""Texts that a person reads, as versioned files."""

import json
from pathlib import Path

from kedro.io.core import get_filepath_str
from kedro_datasets._typing import JSONPreview
from kedro_datasets.text import TextDataset


class CardDataset(TextDataset):
    """A text whose lines Kedro-Viz shows.

    Kedro-Viz would render Markdown and HTML, but only after it has made them safe, so that what a
    model wrote could become a script.

    ```yaml
    data_card:
      type: llamaduo.datasets.CardDataset
      filepath: data/08_reporting/data_card.md
    ```
    """

    def preview(self) -> JSONPreview:
        """The lines."""
        return JSONPreview(json.dumps(self.load().splitlines(), ensure_ascii=False))


class PageDataset(TextDataset):
    """A page for the browser, of which Kedro-Viz shows the address.

    ```yaml
    evaluation_report:
      type: llamaduo.datasets.PageDataset
      filepath: data/08_reporting/evaluation_report.html
    ```
    """

    def preview(self) -> JSONPreview:
        """Where the latest page, or that of the pinned version, is."""
        path = get_filepath_str(self._get_load_path(), self._protocol)
        address = Path(path).as_uri() if self._protocol == "file" else path
        return JSONPreview(json.dumps({"open in a browser": address}))
