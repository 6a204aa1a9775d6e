"""Training from the outside: what goes in, what comes out, and how it ends."""

import hashlib
import json
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pandas as pd
import psutil
import pytest
from safetensors.torch import load_file

from llamaduo.local_llm.base_model import BaseModelSpec
from llamaduo.local_llm.training import TrainingError, train
from llamaduo.parameters import FineTuningParameters
from llamaduo.schemas import TrainingLog
from tests.local_llm.conftest import TAUGHT_BY, changed

TRAIN_IN_A_SCRIPT = """
import sys
from pathlib import Path
import pandas as pd
from llamaduo.local_llm.base_model import BaseModelSpec
from llamaduo.local_llm.training import train
from llamaduo.parameters import FineTuningParameters

parameters = FineTuningParameters(
    start="base", learning_rate=1e-3, epochs=1e6, max_steps=10**9, batch_size=1, lora_rank=1
)
pairs = pd.DataFrame({"prompt": ["a"], "response": ["b"]})
train(BaseModelSpec(sys.argv[1]), pairs, None, Path(sys.argv[2]), parameters, 1, {})
"""


def test_training_changes_the_weights_and_lowers_the_loss(adapter: Path) -> None:
    weights = load_file(adapter / "adapter_model.safetensors")
    log = pd.read_json(adapter / "training_log.jsonl", lines=True)

    # A fresh adapter's second matrices are zero.
    assert all(weight.any() for name, weight in weights.items() if "lora_B" in name)
    assert len(log) == 40
    assert log["loss"].iloc[-1] < log["loss"].iloc[0] / 3
    assert log["step"].tolist() == list(range(1, 41))
    assert log["seconds"].is_monotonic_increasing
    assert log["tokens"].is_monotonic_increasing
    TrainingLog.validate(log.assign(tokens_per_s=1.0))


def test_an_adapter_says_what_it_was_made_from(
    adapter: Path, parameters: FineTuningParameters, random_model: BaseModelSpec
) -> None:
    manifest = json.loads((adapter / "manifest.json").read_text())

    weights = (adapter / "adapter_model.safetensors").read_bytes()
    assert manifest["sha256"] == hashlib.sha256(weights).hexdigest()
    assert manifest["settings"] == parameters.model_dump(mode="json")
    assert manifest["training_data"] == TAUGHT_BY
    assert manifest["base_model"]["vocabulary"] == 49152
    assert manifest["rows"] == 8
    assert manifest["rows_too_long"] == 0
    assert (manifest["steps"], manifest["best_step"]) == (40, 40)
    assert manifest["tokens"] > 40 * 8 * 20
    assert manifest["started_from_adapter"] is False
    assert manifest["peak_memory_mib"]["main"] > 0
    assert manifest["versions"].keys() == {"torch", "transformers", "trl", "peft"}
    for file in adapter.glob("*.json*"):
        assert str(Path(random_model.name_or_path).parent) not in file.read_text()


def test_equal_input_gives_equal_bytes(
    random_model: BaseModelSpec,
    pairs: pd.DataFrame,
    parameters: FineTuningParameters,
    adapter: Path,
    tmp_path: Path,
) -> None:
    again = train(random_model, pairs, None, tmp_path / "checkpoints", parameters, 1, {})

    for name in ("adapter_model.safetensors", "adapter_config.json"):
        assert (again / name).read_bytes() == (adapter / name).read_bytes()
    assert [entry.name for entry in again.parent.iterdir()] == ["adapter"]
    shutil.rmtree(again.parent)


def test_training_goes_on_from_an_adapter_and_leaves_out_what_is_too_long(
    random_model: BaseModelSpec,
    pairs: pd.DataFrame,
    parameters: FineTuningParameters,
    adapter: Path,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    long = pd.DataFrame({"prompt": ["word " * 200], "response": ["x"]})
    parameters = changed(parameters, epochs=2, learning_rate=1e-4)
    before = (adapter / "adapter_model.safetensors").read_bytes()

    continued = train(random_model, pd.concat([pairs, long]), adapter, tmp_path, parameters, 1, {})

    log = pd.read_json(continued / "training_log.jsonl", lines=True)
    first = pd.read_json(adapter / "training_log.jsonl", lines=True)
    assert log["loss"].iloc[0] == pytest.approx(first["loss"].iloc[-1], abs=0.2)
    manifest = json.loads((continued / "manifest.json").read_text())
    assert manifest["started_from_adapter"] is True
    assert (manifest["rows"], manifest["rows_too_long"]) == (8, 1)
    assert (continued / "adapter_model.safetensors").read_bytes() != before
    assert (adapter / "adapter_model.safetensors").read_bytes() == before
    said = capfd.readouterr().err
    assert "1 of 9 pairs are longer than max_length (128 tokens) and left out" in said
    assert "training 2/2, loss " in said
    shutil.rmtree(continued.parent)


def test_an_error_of_the_process_arrives_with_its_sentence(
    random_model: BaseModelSpec,
    pairs: pd.DataFrame,
    parameters: FineTuningParameters,
    temporary: Path,
    tmp_path: Path,
) -> None:
    parameters = changed(parameters, max_length=16)

    message = r"all 8 pairs are longer than max_length \(16 tokens\); raise it \(exit code 1"
    with pytest.raises(TrainingError, match=message):
        train(random_model, pairs, None, tmp_path / "checkpoints", parameters, 1, {})

    assert list(temporary.iterdir()) == []


def test_a_killed_process_is_named_by_its_signal(
    random_model: BaseModelSpec,
    pairs: pd.DataFrame,
    parameters: FineTuningParameters,
    temporary: Path,
    tmp_path: Path,
) -> None:
    killer = threading.Thread(target=lambda: _training_process(psutil.Process()).kill())
    killer.start()

    with pytest.raises(TrainingError, match=re.escape("ended by SIGKILL (out of memory?)")):
        train(random_model, pairs, None, tmp_path / "checkpoints", parameters, 1, {})

    killer.join()
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT])
def test_the_process_and_its_folder_go_with_the_parent(
    random_model: BaseModelSpec, temporary: Path, sent: signal.Signals, tmp_path: Path
) -> None:
    parent = _start(random_model, tmp_path)
    child = _training_process(psutil.Process(parent.pid))

    parent.send_signal(sent)

    assert parent.wait(15) != 0
    wait_for(lambda: has_ended(child))
    assert list(temporary.iterdir()) == []


def test_a_training_tells_hugging_face_nothing_of_itself(
    random_model: BaseModelSpec, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("HF_HUB_DISABLE_TELEMETRY", raising=False)
    parent = _start(random_model, tmp_path)

    environment = _training_process(psutil.Process(parent.pid)).environ()

    parent.terminate()
    parent.wait(15)
    assert environment["HF_HUB_DISABLE_TELEMETRY"] == "1"


def _start(base_model: BaseModelSpec, folder: Path) -> subprocess.Popen[bytes]:
    """A process that trains for ever."""
    script = [sys.executable, "-c", TRAIN_IN_A_SCRIPT, base_model.name_or_path]
    return subprocess.Popen([*script, str(folder / "checkpoints")], stderr=subprocess.DEVNULL)


def _training_process(parent: psutil.Process) -> psutil.Process:
    wait_for(lambda: any("llamaduo.local_llm.sft" in c.cmdline() for c in parent.children()))
    return parent.children()[0]


def has_ended(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return process.status() == psutil.STATUS_ZOMBIE
    return True


def wait_for(condition: Callable[[], bool], timeout_s: float = 30) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)
