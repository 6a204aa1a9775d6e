"""What fine-tuning and inference take on a GPU, with random weights in the shapes of known models.

pytest tests/benchmarks/bench_gpu.py --override-ini python_files='bench_*.py' -s
"""

import json
import time

import pandas as pd
import pytest
import torch
from rich.console import Console
from rich.table import Table
from transformers import AutoModelForCausalLM, LlamaConfig

from llamaduo.local_llm.base_model import BaseModelSpec, load_tokenizer
from llamaduo.local_llm.chat import to_messages
from llamaduo.local_llm.inference import DecodingSettings, respond
from llamaduo.local_llm.training import train
from llamaduo.parameters import FineTuningParameters

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
    pytest.mark.timeout(1200),
]

SHAPES = {
    "1B, as Llama 3.2": {
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "tie_word_embeddings": True,
    },
    "8B, as Llama 3.1": {
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "tie_word_embeddings": False,
    },
}
STEPS, BATCH, WARM_UP = 25, 4, 5
PROMPTS, NEW_TOKENS = 64, 128
TRAINING = FineTuningParameters(
    start="base", learning_rate=1e-4, epochs=1, min_steps=1, batch_size=BATCH, evaluations=1
)
DECODING = DecodingSettings(
    temperature=0.0, top_p=1.0, max_new_tokens=NEW_TOKENS, batch_size=32, seed=1
)


@pytest.fixture(params=SHAPES)
def model(request, random_model, tmp_path):
    """A folder with random weights of that shape, and the demo's tokenizer."""
    tokenizer = load_tokenizer(random_model)
    config = LlamaConfig(
        vocab_size=128256,
        num_attention_heads=32,
        num_key_value_heads=8,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        **SHAPES[request.param],
    )
    with torch.device("cuda"):
        weights = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    weights.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    del weights
    torch.cuda.empty_cache()
    return request.param, str(tmp_path / "model")


def test_training_and_inference(model, tmp_path):
    name, folder = model
    prompts = [f"ticket {n}: " + "the parcel is late " * 100 for n in range(STEPS * BATCH)]
    pairs = pd.DataFrame({"prompt": prompts, "response": '{"category":"delivery"}' * 8})
    table = Table("weights", "s a step", "tokens/s", "GPU GiB", "seconds in all", title=name)
    for in_4bit in (False, True):
        began = time.perf_counter()
        spec = BaseModelSpec(folder, load_in_4bit=in_4bit)
        adapter = train(spec, pairs, None, tmp_path / "checkpoints", TRAINING, 1, {})
        in_all = time.perf_counter() - began
        log = pd.read_json(adapter / "training_log.jsonl", lines=True)
        manifest = json.loads((adapter / "manifest.json").read_text())
        first, last = log.iloc[WARM_UP], log.iloc[-1]
        seconds = last["seconds"] - first["seconds"]
        table.add_row(
            "NF4" if in_4bit else "bf16",
            f"{seconds / (last['step'] - first['step']):.3f}",
            f"{(last['tokens'] - first['tokens']) / seconds:.0f}",
            f"{manifest['peak_memory_mib']['gpu'] / 1024:.1f}",
            f"{in_all:.0f}",
        )
    conversations = [to_messages(None, prompt) for prompt in prompts[:PROMPTS]]
    began = time.perf_counter()
    answers = respond(BaseModelSpec(folder), adapter, conversations, 1, DECODING)
    seconds = time.perf_counter() - began
    drawn = sum(answer.tokens for [answer] in answers)
    Console().print(table)
    print(f"{len(answers)} responses, {drawn} tokens in {seconds:.1f} s with loading and merging")
