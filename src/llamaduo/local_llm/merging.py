"""The adapter added to the weights of its base model: a model like any other."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llamaduo.local_llm.base_model import BaseModelSpec, load_tokenizer, stop_token_ids
from llamaduo.local_llm.chat import TEMPLATE_VARIABLES
from llamaduo.local_llm.inference import DecodingSettings, generation_config, load_merged
from llamaduo.local_llm.release import ReleaseError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

FOREIGN = ("tokenizer.model",)
"""Files that transformers does not write again, and that some converters read."""


@dataclass(frozen=True)
class Merge:
    """An adapter and its base model, to be written as one."""

    base_model: BaseModelSpec
    adapter: Path
    decoding: DecodingSettings
    """How it was evaluated: what engines take where a request says nothing else."""

    def write(self, folder: Path) -> None:
        """Write weights in bfloat16 (safetensors), tokenizer, chat template, generation config.

        Raises:
            ReleaseError: The adapter belongs to another base model.
        """
        import torch

        tokenizer = load_tokenizer(self.base_model)
        described = json.loads((self.adapter / "manifest.json").read_text(encoding="utf-8"))
        require_base(described["base_model"], self.base_model)
        # On the CPU: there is no hurry, and a GPU may be too small, or taken by a server.
        cpu = torch.device("cpu")
        model = load_merged(self.base_model, self.adapter, torch.bfloat16, cpu)
        require_vocabulary(described["base_model"], model)
        stop_tokens = stop_token_ids(model.generation_config, tokenizer)
        model.generation_config = generation_config(self.decoding, stop_tokens, tokenizer)
        model.save_pretrained(folder)
        tokenizer.chat_template = with_variables(tokenizer.get_chat_template())
        tokenizer.save_pretrained(folder)
        for name in FOREIGN:
            _copy(self.base_model, name, folder)


def require_base(trained_on: dict[str, Any], base_model: BaseModelSpec) -> None:
    """Refuse another base model than the adapter was trained on, a merged one among them.

    Args:
        trained_on: ``base_model`` of the adapter's manifest.

    Raises:
        ReleaseError: It is another.
    """
    wanted = trained_on["name_or_path"], trained_on["revision"]
    found = base_model.portable_name, base_model.revision
    if wanted != found:
        raise ReleaseError(
            f"the adapter was trained on {_named(*wanted)}, and base_model is {_named(*found)}; "
            "let base_model in the catalog be what it was in that iteration"
        )


def require_vocabulary(trained_on: dict[str, Any], model: PreTrainedModel) -> None:
    """Refuse a model whose embedding has another size than the adapter was trained on.

    Raises:
        ReleaseError: It has.
    """
    rows = model.get_input_embeddings().num_embeddings
    if rows != trained_on["vocabulary"]:
        raise ReleaseError(
            f"the adapter was trained on an embedding of {trained_on['vocabulary']} rows, and that "
            f"of {trained_on['name_or_path']} has {rows}: the model folder was changed since; put "
            "the one in place that the adapter was trained on"
        )


def with_variables(template: str) -> str:
    """A chat template that sets itself what training has set, since applications do not.

    Only those variables that it names.
    """
    named = {name: value for name, value in TEMPLATE_VARIABLES.items() if _names(template, name)}
    head = "".join(f"{{%- set {name} = {_literal(value)} %}}" for name, value in named.items())
    return head + template


def _names(template: str, variable: str) -> bool:
    return re.search(rf"\b{variable}\b", template) is not None


def _literal(value: bool | str) -> str:
    """As Jinja writes it, llama.cpp's too."""
    return json.dumps(value)


def _copy(base_model: BaseModelSpec, name: str, folder: Path) -> None:
    from transformers.utils import cached_file

    found = cached_file(
        base_model.name_or_path,
        name,
        revision=base_model.revision,
        _raise_exceptions_for_missing_entries=False,
    )
    if found and not (folder / name).exists():
        (folder / name).write_bytes(Path(found).read_bytes())


def _named(name: str, revision: str | None) -> str:
    return f"{name} ({revision})" if revision else name
