"""A model folder as a GGUF file, which llama.cpp, Ollama and LM Studio read.

Converted in a process of its own, ``python -m llamaduo.local_llm.gguf FOLDER FILE QUANTIZATION
NAME``: the converter changes classes of transformers, and holds the whole model.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import logging
import sys
import tempfile
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path

from llamaduo.local_llm.child import child, end_with_the_parent
from llamaduo.local_llm.release import ReleaseError

logger = logging.getLogger(__name__)

FILES = "files.json"

UNQUANTIZED = {"f16": "MOSTLY_F16", "q8_0": "MOSTLY_Q8_0"}
"""What llama.cpp's own converter writes, by its name there; the rest comes from AutoRound."""


@dataclass(frozen=True)
class Conversion:
    """A model folder, to be written as GGUF."""

    model: Path
    name: str
    quantizations: Sequence[str]

    def write(self, folder: Path) -> None:
        """Write ``<name>-<quantization>.gguf`` for each, and ``files.json``, which names them.

        Raises:
            ReleaseError: The converter does not know the model's architecture or tokenizer.
        """
        folder.mkdir()
        files = {each: f"{self.name}-{each}.gguf" for each in self.quantizations}
        for quantization, file in files.items():
            logger.info("writing %s", file)
            convert(self.model, folder / file, quantization, self.name)
        (folder / FILES).write_text(json.dumps(files), encoding="utf-8")


def gguf_files(folder: Path) -> dict[str, Path]:
    """Quantization: its file."""
    named: dict[str, str] = json.loads((folder / FILES).read_text(encoding="utf-8"))
    return {quantization: folder / file for quantization, file in named.items()}


def converter_versions() -> dict[str, str]:
    """Of the packages that merge, convert and read again."""
    packages = ("torch", "transformers", "peft", "auto-round", "gguf", "xllamacpp")
    return {package: importlib.metadata.version(package) for package in packages}


def convert(model: Path, target: Path, quantization: str, name: str) -> None:
    """Write a GGUF file with tokenizer, chat template and stop token inside.

    Args:
        model: A folder in the layout of ``save_pretrained``.
        quantization: ``f16``, ``q8_0`` or ``q4_k_m``, as llama.cpp names them.
        name: The model's, in the file's metadata.

    Raises:
        ReleaseError: The converter does not know the model's architecture or tokenizer.
    """
    arguments = [str(model), str(target), quantization, name]
    with child("llamaduo.local_llm.gguf", *arguments) as started:
        said = started.said()
    if started.process.returncode != 0 or not target.is_file():
        raise ReleaseError(
            f"the model cannot be written as GGUF ({quantization}): "
            f"{said[-1] if said else 'the converter says not why'}; leave it out of "
            "deployment.quantizations to release the model without it"
        )


def main(model: Path, target: Path, quantization: str, name: str) -> None:
    """Convert in this process."""
    end_with_the_parent()
    logging.disable(logging.WARNING)
    with redirect_stdout(sys.stderr):  # nobody reads the other
        if quantization in UNQUANTIZED:
            _write(model, target, quantization, name)
        else:
            _quantize(model, target, quantization, name)


def _write(model: Path, target: Path, quantization: str, name: str) -> None:
    import gguf
    import torch

    # llama.cpp's converter is no package; AutoRound has a copy of it (MIT) among its modules.
    package = importlib.util.find_spec("auto_round")
    assert package is not None  # noqa: S101  (a dependency)
    assert package.origin is not None  # noqa: S101
    sys.path.insert(0, str(Path(package.origin).parent / "export/export_to_gguf"))
    import conversion

    described = conversion.ModelBase.load_hparams(model, False)
    architecture = conversion.get_model_architecture(described, conversion.ModelType.TEXT)
    converter = conversion.get_model_class(architecture)
    file_type = gguf.LlamaFileType[UNQUANTIZED[quantization]]
    with torch.inference_mode():
        converter(model, file_type, target, model_name=name).write()


def _quantize(model: Path, target: Path, quantization: str, name: str) -> None:
    from auto_round import AutoRound
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        named = Path(folder) / name  # AutoRound calls a model as its folder is called
        named.symlink_to(model.absolute())
        quantizer = AutoRound(
            AutoModelForCausalLM.from_pretrained(named, dtype="auto"),
            AutoTokenizer.from_pretrained(named),
            scheme=f"GGUF:{quantization.upper()}",
            # Rounded to the nearest: what else it can do needs calibration texts.
            iters=0,
            disable_opt_rtn=True,
            device_map="cpu",
        )
        quantizer.quantize_and_save(output_dir=folder, format=f"gguf:{quantization}")
        (written,) = Path(folder).rglob("*.gguf")
        written.rename(target)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4])
