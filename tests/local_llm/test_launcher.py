"""Training in two processes: what they learn, and how they end."""

import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pandas as pd
import psutil
import pytest
from pydantic import ValidationError

from llamaduo.local_llm.base_model import BaseModelSpec
from llamaduo.local_llm.fine_tune import fine_tune
from llamaduo.local_llm.training import TrainingError, TrainingJob, train
from llamaduo.parameters import FineTuningParameters
from tests.local_llm.conftest import changed
from tests.local_llm.test_checkpoints import WEIGHTS
from tests.local_llm.test_training import TRAIN_IN_A_SCRIPT, has_ended, wait_for

TWO = Path("conf/accelerate/cpu_2_processes.yaml").absolute()

GRADIENTS = """
import hashlib
import json
import sys
from dataclasses import replace
from pathlib import Path

from accelerate import PartialState
from accelerate.utils import gather_object
from datasets import Dataset
from transformers import TrainerCallback
from trl import SFTTrainer

from llamaduo.local_llm.base_model import load_model, load_tokenizer
from llamaduo.local_llm.fine_tune import adapted, training_arguments
from llamaduo.local_llm.rows import encode_rows
from llamaduo.local_llm.trainer import WatchedTrainer, trainer_class
from llamaduo.local_llm.training import TrainingJob


class UnwrappedTrainer(WatchedTrainer):
    def compute_loss(self, model, *args, **arguments):
        return super().compute_loss(self.accelerator.unwrap_model(model), *args, **arguments)


class Gradients(TrainerCallback):
    def __init__(self):
        self.digest = hashlib.sha256()

    def on_pre_optimizer_step(self, args, state, control, model, **kwargs):
        for parameter in model.parameters():
            if parameter.requires_grad:
                self.digest.update(parameter.grad.numpy().tobytes())


file = Path(sys.argv[1])
job = TrainingJob.read(file)
tokenizer = load_tokenizer(job.base_model)
rows = encode_rows(tokenizer, json.loads(Path(sys.argv[2]).read_text()), [tokenizer.eos_token_id])
found = {}
for name in ("ours", "unwrapped"):
    job = replace(job, checkpoints=file.parent / name)
    arguments = training_arguments(job, 3, has_validation=False)
    gradients = Gradients()
    trainer = (trainer_class("sft") if name == "ours" else UnwrappedTrainer)(
        model=adapted(load_model(job.base_model), job),
        args=arguments,
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        callbacks=[gradients],
    )
    trainer.train()
    found[name] = gather_object([gradients.digest.hexdigest()])
    found["seen by " + name] = trainer.last_pairs()
if PartialState().is_main_process:
    file.with_name("found.json").write_text(json.dumps(found))
"""


@pytest.fixture
def together(parameters: FineTuningParameters) -> FineTuningParameters:
    """Six steps in two processes, which share a batch of eight."""
    alone = changed(parameters, epochs=6, learning_rate=1e-3, evaluations=2)
    return changed(alone, batch_size=4, launcher="accelerate", accelerate_config=TWO)


@pytest.fixture
def lessons(pairs: pd.DataFrame) -> pd.DataFrame:
    """Eight pairs to train on, and eight to validate with.

    Validation takes the mean over batches, whatever their size, so that these have equal ones.
    """
    others = pairs.assign(response="no", validation=True)
    return pd.concat([pairs.assign(validation=False), others])


def test_two_processes_learn_what_one_does_with_the_same_batch(
    job: TrainingJob,
    lessons: pd.DataFrame,
    together: FineTuningParameters,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    alone = changed(together, batch_size=8, launcher="subprocess", accelerate_config=None)
    one = tmp_path / "adapter"
    fine_tune(replace(job, parameters=alone), lessons.to_dict("records"), one)
    capfd.readouterr()

    two = train(job.base_model, lessons, None, tmp_path / "two", together, 1, {})

    logs = [pd.read_json(each / "training_log.jsonl", lines=True) for each in (one, two)]
    manifests = [json.loads((each / "manifest.json").read_text()) for each in (one, two)]
    for name in ("loss", "validation_loss"):
        assert logs[1][name].tolist() == pytest.approx(
            logs[0][name].tolist(), abs=1e-2, nan_ok=True
        )
    assert logs[1]["loss"].iloc[-1] < logs[1]["loss"].iloc[0] - 0.1
    assert logs[1]["validation_loss"].count() == 2
    assert logs[1]["tokens"].tolist() == logs[0]["tokens"].tolist()
    assert [each["processes"] for each in manifests] == [1, 2]
    assert manifests[1]["steps"] == manifests[0]["steps"] == len(logs[1]) == 6
    # The first process alone writes and speaks.
    assert {path.name for path in two.iterdir()} == {path.name for path in one.iterdir()}
    assert list(two.parent.iterdir()) == [two]
    said = capfd.readouterr().err.splitlines()
    assert len([line for line in said if line.startswith("training 6/6")]) == 1
    assert all(line.startswith("training ") for line in said)


@pytest.mark.soak
def test_gradients_are_equal_in_both_processes_and_would_not_be_without_their_wrapper(
    job: TrainingJob, pairs: pd.DataFrame, together: FineTuningParameters, tmp_path: Path
) -> None:
    replace(job, parameters=together, processes=2).write(tmp_path / "job.json")
    ids = [f"pair {number}" for number in range(8)]
    pairs.assign(id=ids).to_json(tmp_path / "pairs.json", orient="records")
    (tmp_path / "gradients.py").write_text(GRADIENTS)

    subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"),
            *(tmp_path / "gradients.py", tmp_path / "job.json", tmp_path / "pairs.json"),
        ],
        env={**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(tmp_path)},
        check=True,
    )

    found = json.loads((tmp_path / "found.json").read_text())
    assert sorted(found["seen by ours"]) == ids  # each process has seen other pairs
    assert found["ours"][0] == found["ours"][1]
    assert found["unwrapped"][0] != found["unwrapped"][1]


def test_fewer_processes_than_the_config_says_are_an_error(
    random_model: BaseModelSpec,
    pairs: pd.DataFrame,
    together: FineTuningParameters,
    tmp_path: Path,
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("distributed_type: 'NO'\nnum_processes: 2\n")
    parameters = changed(together, accelerate_config=config)

    message = "asked for 2 training processes, 1 run; see distributed_type and num_processes"
    with pytest.raises(TrainingError, match=message):
        train(random_model, pairs, None, tmp_path / "checkpoints", parameters, 1, {})


def test_a_killed_process_ends_both_with_one_sentence(
    random_model: BaseModelSpec,
    pairs: pd.DataFrame,
    together: FineTuningParameters,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    parameters = changed(together, epochs=1000, evaluations=200)
    killer = threading.Thread(target=_kill_when_there_is, args=[tmp_path, "checkpoint-*"])
    killer.start()

    message = (
        r"^rank 1 of the 2 training processes was ended by SIGKILL \(out of memory\?\); "
        r"run again, and it goes on (at the first step|after step 5)$"
    )
    with pytest.raises(TrainingError, match=message):
        train(random_model, pairs, None, tmp_path, parameters, 1, {})

    killer.join()
    assert _training_processes(psutil.Process()) == []
    assert all(line.startswith("training ") for line in capfd.readouterr().err.splitlines())


@pytest.mark.soak
def test_two_processes_go_on_after_a_kill_to_the_weights_of_those_that_were_not(
    random_model: BaseModelSpec,
    lessons: pd.DataFrame,
    together: FineTuningParameters,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    slow = changed(together, epochs=40, evaluations=8, patience=8, lora_dropout=0.1)
    undisturbed = train(random_model, lessons, None, tmp_path / "a", slow, 1, {})
    checkpoints = tmp_path / "b"
    killer = threading.Thread(target=_kill_when_there_is, args=[checkpoints, "checkpoint-10"])

    killer.start()
    with pytest.raises(TrainingError, match=r"SIGKILL .* goes on after step \d+$"):
        train(random_model, lessons, None, checkpoints, slow, 1, {})
    killer.join()
    with caplog.at_level("INFO"):
        resumed = train(random_model, lessons, None, checkpoints, slow, 1, {})

    assert "goes on from step" in caplog.text
    assert (resumed / WEIGHTS).read_bytes() == (undisturbed / WEIGHTS).read_bytes()
    logs = [
        pd.read_json(each / "training_log.jsonl", lines=True) for each in (resumed, undisturbed)
    ]
    pd.testing.assert_frame_equal(*[log.drop(columns="seconds") for log in logs])


@pytest.mark.soak
@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT])
@pytest.mark.parametrize("late", [False, True])
def test_the_launcher_and_its_processes_go_with_the_parent(
    random_model: BaseModelSpec, temporary: Path, sent: signal.Signals, late: bool, tmp_path: Path
) -> None:
    script = TRAIN_IN_A_SCRIPT.replace(
        "lora_rank=1", f'lora_rank=1, launcher="accelerate", accelerate_config={str(TWO)!r}'
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", script, random_model.name_or_path, str(tmp_path / "c")],
        stderr=subprocess.DEVNULL,
    )
    process = psutil.Process(parent.pid)
    wait_for(lambda: len(process.children()) == 1)
    if late:
        wait_for(lambda: len(_training_processes(process)) == 2)
    all_of_them = process.children(recursive=True)

    parent.send_signal(sent)

    assert parent.wait(15) != 0
    wait_for(lambda: all(has_ended(each) for each in all_of_them))
    wait_for(lambda: list(temporary.iterdir()) == [])


@pytest.mark.parametrize("name", sorted(path.name for path in TWO.parent.iterdir()))
def test_each_config_that_ships_can_be_read_and_says_whether_it_was_run(
    parameters: FineTuningParameters, name: str
) -> None:
    file = TWO.parent / name

    changed(parameters, launcher="accelerate", accelerate_config=file)

    line = file.read_text().partition("\n")[0]
    assert line.startswith("# Run by the tests" if file == TWO else "# Never run")


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("num_processes: [", "while parsing"),
        ("use_cpu: true", "num_processes"),
        ("num_processes: 0", "num_processes"),
        ("num_processes: 16\nnum_machines: 2", "num_machines"),
    ],
)
def test_a_config_that_says_no_number_for_one_machine_is_refused(
    parameters: FineTuningParameters, tmp_path: Path, content: str, complaint: str
) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(content)

    with pytest.raises(ValidationError, match=f"(?s)config.yaml is no accelerate .*{complaint}"):
        changed(parameters, launcher="accelerate", accelerate_config=file)


@pytest.mark.parametrize("changes", [{"launcher": "accelerate"}, {"accelerate_config": TWO}])
def test_launcher_and_config_come_together(
    parameters: FineTuningParameters, changes: dict[str, object]
) -> None:
    with pytest.raises(ValidationError, match="launcher: accelerate needs an accelerate_config"):
        changed(parameters, **changes)


def _training_processes(parent: psutil.Process) -> list[psutil.Process]:
    """Those that train; their launchers are left out."""
    found = parent.children(recursive=True)
    return [each for each in found if each.is_running() and "RANK" in each.environ()]


def _kill_when_there_is(folder: Path, checkpoint: str) -> None:
    wait_for(lambda: any(folder.glob(f"*/{checkpoint}")), 60)
    for process in _training_processes(psutil.Process()):
        if process.environ()["RANK"] == "1":
            process.kill()
