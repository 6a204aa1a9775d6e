"""Catalog entries that kedro-datasets does not have."""

from llamaduo.datasets.arrow_table import ArrowTableDataset
from llamaduo.datasets.audit_groups import AuditGroupsDataset
from llamaduo.datasets.base_model import BaseModelDataset
from llamaduo.datasets.checkpoints import CheckpointsDataset
from llamaduo.datasets.folder import (
    AdapterDataset,
    GGUFDataset,
    ModelDataset,
    ReleaseDataset,
)
from llamaduo.datasets.inference import InferenceDataset
from llamaduo.datasets.json_lines import JSONLinesDataset
from llamaduo.datasets.judge import JudgeDataset
from llamaduo.datasets.previous import PreviousDataset
from llamaduo.datasets.prompt import PromptDataset, PromptFolderDataset
from llamaduo.datasets.raw_pairs import RawPairsDataset
from llamaduo.datasets.service_llm import ServiceLLMDataset
from llamaduo.datasets.text import CardDataset, PageDataset

__all__ = [
    "AdapterDataset",
    "ArrowTableDataset",
    "AuditGroupsDataset",
    "BaseModelDataset",
    "CardDataset",
    "CheckpointsDataset",
    "GGUFDataset",
    "InferenceDataset",
    "JSONLinesDataset",
    "JudgeDataset",
    "ModelDataset",
    "PageDataset",
    "PreviousDataset",
    "PromptDataset",
    "PromptFolderDataset",
    "RawPairsDataset",
    "ReleaseDataset",
    "ServiceLLMDataset",
]
