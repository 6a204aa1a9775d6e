"""The groups of a fairness audit as an input of the catalog."""

from pathlib import Path
from typing import Any, NoReturn

import yaml
from kedro.io import AbstractDataset, DatasetError
from kedro_datasets._typing import JSONPreview
from pydantic import ValidationError

from llamaduo.audit_groups import AuditGroups


class AuditGroupsDataset(AbstractDataset[NoReturn, AuditGroups]):
    """A YAML file of groups, checked when it is loaded.

    ```yaml
    audit_groups:
      type: llamaduo.datasets.AuditGroupsDataset
      filepath: conf/base/fairness/english.yml
    ```

    Args:
        filepath: UTF-8.
    """

    def __init__(self, *, filepath: str, metadata: dict[str, Any] | None = None) -> None:
        self._filepath = Path(filepath)
        self.metadata = metadata

    def load(self) -> AuditGroups:
        """The groups.

        Raises:
            DatasetError: The file is no YAML of the form of ``AuditGroups``.
        """
        try:
            content = yaml.safe_load(self._filepath.read_text(encoding="utf-8"))
            return AuditGroups.model_validate(content)
        except (yaml.YAMLError, ValidationError) as error:
            raise DatasetError(
                f"{self._filepath} holds no groups for the fairness audit, expected the form of "
                f"conf/base/fairness/english.yml: {error}"
            ) from error

    def save(self, data: NoReturn) -> NoReturn:
        """Groups are an input."""
        raise DatasetError("groups are never written")

    def preview(self) -> JSONPreview:
        """The groups and their words, for Kedro-Viz."""
        return JSONPreview(self.load().model_dump_json())

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._filepath)}
