"""Which base model is used, and how it is loaded."""

from __future__ import annotations

import dataclasses
import logging
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase


@dataclasses.dataclass(frozen=True)
class BaseModelSpec:
    """A pretrained chat model."""

    name_or_path: str
    """A hub id (``organisation/name``) or a local folder."""
    revision: str | None = None
    """Branch, tag or commit of a hub id."""
    load_in_4bit: bool = False
    """Quantise the weights to NF4 while training (QLoRA, Dettmers et al. 2023)."""

    @property
    def portable_name(self) -> str:
        """The name without what belongs to this machine alone."""
        path = Path(self.name_or_path)
        if not path.is_absolute():
            return self.name_or_path
        if path.is_relative_to(Path.cwd()):
            return str(path.relative_to(Path.cwd()))
        return path.name


def load_tokenizer(spec: BaseModelSpec) -> PreTrainedTokenizerBase:
    """Load the tokenizer, padding on the left as generation needs it.

    Raises:
        FileNotFoundError: The name is a path, and nothing is there.
        ValueError: The model has no chat template, or weights that are stored quantised; the
            tokenizer has neither padding nor an end, or more tokens than the model.
    """
    from transformers import AutoConfig, AutoTokenizer

    _require_folder(spec)
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
        spec.name_or_path, revision=spec.revision, trust_remote_code=False, padding_side="left"
    )
    if tokenizer.chat_template is None:
        raise ValueError(
            f"the base model {spec.name_or_path} has no chat template; choose its instruct or chat "
            "variant, or put a chat_template.jinja into the model folder"
        )
    config = AutoConfig.from_pretrained(
        spec.name_or_path, revision=spec.revision, trust_remote_code=False
    )
    stored = getattr(config, "quantization_config", None)
    if stored is not None:
        # An adapter is trained beside what ``load_model`` quantises, and merged into floats.
        raise ValueError(
            f"the weights of {spec.name_or_path} are stored quantised ({stored['quant_method']}); "
            "choose the model as it was before, in bfloat16, float16 or float32, and "
            "load_in_4bit: true where memory is short"
        )
    rows = config.get_text_config().vocab_size
    if len(tokenizer) > rows:
        # Never resized: the rows would be random, and an adapter does not hold them.
        raise ValueError(
            f"the tokenizer of {spec.name_or_path} has {len(tokenizer)} tokens, the model's "
            f"embedding {rows} rows and none for those that were added; put the tokenizer into the "
            "model folder as it came with the model"
        )
    if tokenizer.pad_token is None:
        if tokenizer.eos_token is None:
            raise _without_end(tokenizer)
        # Padding is masked by position, in the loss and in attention, so its token can be any that
        # exists; a new one would need a larger embedding, which an adapter does not hold.
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_model(
    spec: BaseModelSpec, dtype: torch.dtype | None = None, on: torch.device | None = None
) -> PreTrainedModel:
    """Load the weights (or NF4), in evaluation mode.

    Where processes share one copy, the trainer distributes it; its arguments have to exist by now.

    Args:
        dtype: None takes the ``compute_dtype``.
        on: None takes the ``device``.

    Raises:
        FileNotFoundError: The name is a path, and nothing is there.
    """
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    _require_folder(spec)
    silence_known_noise()
    _choose_float_kernels()
    shared = is_shared()
    quantization = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute_dtype(),
        # Only floats can be cut into the parts of several processes.
        bnb_4bit_quant_storage=compute_dtype() if shared else None,
    )
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
        spec.name_or_path,
        revision=spec.revision,
        trust_remote_code=False,
        use_safetensors=True,
        dtype=dtype or compute_dtype(),
        device_map=None if shared else {"": on or device()},
        quantization_config=quantization if spec.load_in_4bit else None,
    )
    if spec.load_in_4bit:
        _keep_layout_of_4_bit_weights(model)
    return model


def compute_dtype() -> torch.dtype:
    """Bfloat16 where the hardware multiplies in it, float32 elsewhere."""
    import torch

    if torch.cuda.is_available():
        in_hardware = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        cpu = torch.cpu.get_capabilities()
        in_hardware = cpu.get("avx512_bf16", False) or cpu.get("amx_bf16", False)
    return torch.bfloat16 if in_hardware else torch.float32


def device() -> torch.device:
    """The current GPU if there is one, the CPU otherwise."""
    import torch

    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")


def is_shared() -> bool:
    """Whether this process holds a part of the weights only: FSDP, or DeepSpeed's ZeRO-3."""
    from accelerate.utils import parse_flag_from_env
    from transformers.integrations import is_deepspeed_zero3_enabled

    return bool(parse_flag_from_env("ACCELERATE_USE_FSDP") or is_deepspeed_zero3_enabled())


def load_generation_config(spec: BaseModelSpec) -> GenerationConfig:
    """The one that ``load_model`` gives the model."""
    from transformers import AutoConfig, GenerationConfig

    _require_folder(spec)
    try:
        return GenerationConfig.from_pretrained(spec.name_or_path, revision=spec.revision or "main")
    except OSError:  # the model has none of its own
        config = AutoConfig.from_pretrained(
            spec.name_or_path, revision=spec.revision, trust_remote_code=False
        )
        return GenerationConfig.from_model_config(config)


def stop_token_ids(generation: GenerationConfig, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The tokens that end a response, ascending.

    A chat model often ends its turn with another token than the one that ends a document; its
    generation config names both.

    Raises:
        ValueError: There is none.
    """
    ends = generation.eos_token_id
    listed = ends if isinstance(ends, list) else [ends]
    stops = sorted({token for token in [*listed, tokenizer.eos_token_id] if token is not None})
    if not stops:
        raise _without_end(tokenizer)
    return stops


def silence_known_noise() -> None:
    """Keep out of sight what third parties say at each start and nobody can act on."""
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # of weights that load in a second; downloads show their own
    # An optional kernel package is not installed.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    # Checkpoints are ordered by their numbers where a filesystem's times are coarse.
    logging.getLogger("transformers.trainer_utils").setLevel(logging.ERROR)
    # PEFT 0.21 asks transformers 5.24 for an attribute by its old name.
    warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)


def _choose_float_kernels() -> None:
    """Have MKL choose them in one thread, so that each process computes the same.

    It does so at a function's first call. Where several threads make that call at once, one of them
    may get a less exact kernel, and the first batch's positions are encoded otherwise than in the
    next process (https://github.com/pytorch/pytorch/issues/188792).
    """
    import torch

    one = torch.ones(1)
    for function in (torch.cos, torch.sin, torch.exp, torch.log, torch.sqrt, torch.tanh, torch.erf):
        function(one)


def _keep_layout_of_4_bit_weights(model: PreTrainedModel) -> None:
    """Have an evaluation leave the weights as training needs them.

    On CPUs with AVX512_BF16 bitsandbytes (0.50.2, ``Linear4bit.forward``) packs them for inference
    in the first pass in evaluation mode; what is trained after that has wrong gradients.
    """
    from bitsandbytes.nn import Linear4bit

    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False


def _without_end(tokenizer: PreTrainedTokenizerBase) -> ValueError:
    return ValueError(
        f"the base model {tokenizer.name_or_path} names no token that ends a response; set "
        "eos_token in its tokenizer_config.json to the one with which its chat template ends a turn"
    )


def _require_folder(spec: BaseModelSpec) -> None:
    """A hub id has at most one slash; transformers would look up any other name on the hub too."""
    path = Path(spec.name_or_path)
    is_path = path.is_absolute() or spec.name_or_path.startswith(".") or len(path.parts) > 2
    if is_path and not path.is_dir():
        raise FileNotFoundError(
            f"there is no model folder at {spec.name_or_path}; "
            "`python -m llamaduo.local_llm.demo_model` builds those of the demo"
        )
