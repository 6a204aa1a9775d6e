"""The base model's description and loading."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from llamaduo.local_llm.base_model import (
    BaseModelSpec,
    compute_dtype,
    load_generation_config,
    load_model,
    load_tokenizer,
    stop_token_ids,
)

LIGHT_MODULES = [
    "accelerate_config",
    "base_model",
    "chat",
    "demo_model",
    "inference",
    "sft",
    "training",
]
HEAVY_PACKAGES = {"torch", "transformers", "peft", "trl", "datasets", "accelerate"}


@pytest.fixture
def copied_model(random_model: BaseModelSpec, tmp_path: Path) -> Path:
    return Path(shutil.copytree(random_model.name_or_path, tmp_path / "model"))


def test_importing_the_package_imports_no_machine_learning() -> None:
    imports = "; ".join(f"import llamaduo.local_llm.{name}" for name in LIGHT_MODULES)
    command = [sys.executable, "-c", f"{imports}; import sys; print(*sys.modules)"]

    modules = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()

    assert HEAVY_PACKAGES.isdisjoint(modules)


def test_a_model_is_loaded_in_the_dtype_of_the_hardware(random_model: BaseModelSpec) -> None:
    model = load_model(random_model)

    assert model.dtype is compute_dtype()
    assert not model.training


def test_a_4_bit_model_keeps_its_layers_in_nf4(random_model: BaseModelSpec) -> None:
    spec = BaseModelSpec(random_model.name_or_path, load_in_4bit=True)

    layer = load_model(spec).get_submodule("model.layers.0.mlp.up_proj")

    assert layer.weight.dtype is torch.uint8
    assert layer.weight.quant_state.quant_type == "nf4"


def test_weights_that_are_stored_quantised_are_refused(copied_model: Path) -> None:
    stored = {"quant_method": "bitsandbytes", "load_in_8bit": True}
    _edit(copied_model / "config.json", quantization_config=stored)

    with pytest.raises(
        ValueError, match=r"are stored quantised \(bitsandbytes\).*load_in_4bit: true"
    ):
        load_tokenizer(BaseModelSpec(str(copied_model)))


def test_prompts_are_padded_on_the_left(random_model: BaseModelSpec) -> None:
    tokenizer = load_tokenizer(random_model)

    masks = tokenizer(["a", "a b c d"], padding=True)["attention_mask"]

    assert masks[0][0] == 0
    assert masks[0][-1] == 1


def test_a_tokenizer_without_padding_pads_with_its_end_token(copied_model: Path) -> None:
    _edit(copied_model / "tokenizer_config.json", pad_token=None)
    vocabulary = len(load_tokenizer(BaseModelSpec(str(copied_model))))

    tokenizer = load_tokenizer(BaseModelSpec(str(copied_model)))

    assert tokenizer.pad_token == tokenizer.eos_token
    assert (
        len(tokenizer)
        == vocabulary
        == load_model(BaseModelSpec(str(copied_model))).config.vocab_size
    )


def test_a_model_that_names_no_end_of_a_response_is_refused(copied_model: Path) -> None:
    _edit(copied_model / "tokenizer_config.json", eos_token=None)
    for name in ("config.json", "generation_config.json"):
        _edit(copied_model / name, eos_token_id=None)
    spec = BaseModelSpec(str(copied_model))

    with pytest.raises(ValueError, match=r"model names no token that ends .* set eos_token in"):
        stop_token_ids(load_generation_config(spec), load_tokenizer(spec))


def test_a_tokenizer_with_neither_padding_nor_end_is_refused_for_its_end(
    copied_model: Path,
) -> None:
    _edit(copied_model / "tokenizer_config.json", eos_token=None, pad_token=None)

    with pytest.raises(ValueError, match=r"model names no token that ends .* set eos_token in"):
        load_tokenizer(BaseModelSpec(str(copied_model)))


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(copied_model: Path) -> None:
    spec = BaseModelSpec(str(copied_model))
    tokenizer = load_tokenizer(spec)
    tokenizer.add_tokens(["<order>", "</order>"])
    tokenizer.save_pretrained(copied_model)

    with pytest.raises(ValueError, match=r"model has 49154 tokens, .* 49152 rows .* as it came"):
        load_tokenizer(spec)


def test_a_model_may_have_more_rows_than_its_tokenizer_has_tokens(copied_model: Path) -> None:
    _edit(copied_model / "config.json", vocab_size=49216)

    assert len(load_tokenizer(BaseModelSpec(str(copied_model)))) == 49152


def test_a_model_without_a_chat_template_is_refused_by_name(copied_model: Path) -> None:
    (copied_model / "chat_template.jinja").unlink()

    with pytest.raises(ValueError, match=r"model has no chat template; choose its instruct"):
        load_tokenizer(BaseModelSpec(str(copied_model)))


@pytest.mark.parametrize("name", ["data/06_models/missing", "./missing", "/missing"])
def test_a_missing_folder_is_named_and_never_looked_up_on_the_hub(name: str) -> None:
    with pytest.raises(FileNotFoundError, match=f"no model folder at {name}"):
        load_model(BaseModelSpec(name))


def test_the_stop_tokens_are_those_of_the_generation_config_and_the_tokenizer(
    copied_model: Path,
) -> None:
    _edit(copied_model / "generation_config.json", eos_token_id=[7, 0])
    spec = BaseModelSpec(str(copied_model))
    tokenizer = load_tokenizer(spec)

    assert stop_token_ids(load_generation_config(spec), tokenizer) == [0, tokenizer.eos_token_id, 7]


def test_a_portable_name_leaves_out_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    assert BaseModelSpec("org/model").portable_name == "org/model"
    assert BaseModelSpec("data/model").portable_name == "data/model"
    assert BaseModelSpec(str(tmp_path / "data/model")).portable_name == "data/model"
    assert BaseModelSpec("/elsewhere/model").portable_name == "model"


def _edit(file: Path, **changes: object) -> None:
    content = json.loads(file.read_text())
    file.write_text(json.dumps({**content, **changes}))
