"""An interrupted training goes on from where it was; the best step is kept, not the last."""

import dataclasses
import json
import random
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import psutil
import pytest
from safetensors.torch import load_file
from transformers import TrainerState

from llamaduo.local_llm import trainer
from llamaduo.local_llm.base_model import BaseModelSpec
from llamaduo.local_llm.checkpoints import (
    FINISHED,
    drop_incomplete,
    latest_checkpoint,
    mark_complete,
    open_checkpoints,
)
from llamaduo.local_llm.fine_tune import fine_tune, has_ended
from llamaduo.local_llm.training import TrainingError, TrainingJob, train
from llamaduo.parameters import FineTuningParameters
from tests.local_llm.conftest import changed

WEIGHTS = "adapter_model.safetensors"
KILLS = 10


def checkpoint(folder: Path, step: int, *, complete: bool = True) -> Path:
    path = folder / f"checkpoint-{step}"
    path.mkdir(parents=True)
    (path / "optimizer.pt").write_bytes(b"x" * 100)
    if complete:
        mark_complete(path)
    return path


def test_the_latest_checkpoint_that_is_whole_counts(tmp_path: Path) -> None:
    checkpoint(tmp_path, 5)
    whole = checkpoint(tmp_path, 10)
    truncated = checkpoint(tmp_path, 15)
    (truncated / "optimizer.pt").write_bytes(b"x" * 99)
    unmarked = checkpoint(tmp_path, 100, complete=False)

    assert latest_checkpoint(tmp_path) == whole

    drop_incomplete(tmp_path)
    assert not truncated.exists()
    assert not unmarked.exists()
    assert whole.exists()


def test_a_checkpoint_holds_what_was_trained_and_not_the_tokenizer(tmp_path: Path) -> None:
    path = checkpoint(tmp_path, 5, complete=False)
    names = ("tokenizer.json", "special_tokens_map.json", "chat_template.jinja", "README.md")
    for name in (*names, "vocab.txt", "adapter_config.json"):
        (path / name).write_text("x")

    mark_complete(path)

    kept = {each.name for each in path.iterdir()}
    assert kept == {"optimizer.pt", "adapter_config.json", "complete.json"}


def test_the_checkpoints_of_finished_trainings_go_and_those_of_others_stay(tmp_path: Path) -> None:
    for training in ("finished", "killed", "own"):
        checkpoint(tmp_path / training, 1)
    for training in ("finished", "own"):
        (tmp_path / training / FINISHED).touch()

    assert open_checkpoints(tmp_path, "own") == tmp_path / "own"

    assert {path.name for path in tmp_path.iterdir()} == {"killed", "own"}


@pytest.fixture
def slow(parameters: FineTuningParameters) -> FineTuningParameters:
    """Forty steps with a checkpoint after every fifth."""
    return changed(parameters, evaluations=8, patience=8, lora_dropout=0.1)


@pytest.fixture
def validated(pairs: pd.DataFrame) -> pd.DataFrame:
    return pairs.assign(id=[f"p{n}" for n in range(8)], validation=[True, True, *[False] * 6])


def test_a_killed_training_goes_on_to_the_weights_of_one_that_was_not(
    random_model: BaseModelSpec,
    validated: pd.DataFrame,
    slow: FineTuningParameters,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    undisturbed = train(random_model, validated, None, tmp_path / "a", slow, 1, {})
    checkpoints = tmp_path / "b"
    killer = threading.Thread(
        target=lambda: kill_when(lambda: any(checkpoints.glob("*/checkpoint-10")))
    )

    killer.start()
    with pytest.raises(TrainingError, match="SIGKILL"):
        train(random_model, validated, None, checkpoints, slow, 1, {})
    killer.join()
    with caplog.at_level("INFO"):
        resumed = train(random_model, validated, None, checkpoints, slow, 1, {})

    assert (resumed / WEIGHTS).read_bytes() == (undisturbed / WEIGHTS).read_bytes()
    assert "goes on from step" in caplog.text
    logs = [
        pd.read_json(each / "training_log.jsonl", lines=True) for each in (resumed, undisturbed)
    ]
    pd.testing.assert_frame_equal(*[log.drop(columns="seconds") for log in logs])
    assert logs[0]["seconds"].is_monotonic_increasing


@pytest.mark.soak
@pytest.mark.parametrize("dropout", [0.1, 0.0], ids=["drawn at random", "packed"])
def test_ten_kills_at_any_instant_leave_the_weights_as_they_were(
    random_model: BaseModelSpec,
    validated: pd.DataFrame,
    slow: FineTuningParameters,
    dropout: float,
    tmp_path: Path,
) -> None:
    slow = changed(slow, lora_dropout=dropout)
    undisturbed = train(random_model, validated, None, tmp_path / "a", slow, 1, {})
    seconds = json.loads((undisturbed / "manifest.json").read_text())["seconds"]
    rng, killed = random.Random(1), 0

    while killed < KILLS:
        checkpoints = tmp_path / f"b{killed}"
        instant = time.monotonic() + rng.uniform(0.3, 1.5) * seconds
        killer = threading.Thread(target=kill_at, args=[instant])
        killer.start()
        try:
            train(random_model, validated, None, checkpoints, slow, 1, {})
        except TrainingError:
            killed += 1
        killer.join()
        resumed = train(random_model, validated, None, checkpoints, slow, 1, {})
        assert (resumed / WEIGHTS).read_bytes() == (undisturbed / WEIGHTS).read_bytes()
        shutil.rmtree(checkpoints)


def test_the_adapter_is_that_of_the_lowest_validation_loss(
    job: TrainingJob, validated: pd.DataFrame, slow: FineTuningParameters, tmp_path: Path
) -> None:
    adapter = tmp_path / "adapter"
    # The others teach something else, the better they are known.
    validated.loc[validated["validation"], "response"] = "yellow grey pink"
    job = dataclasses.replace(job, parameters=changed(slow, patience=2))

    fine_tune(job, validated.to_dict("records"), adapter)

    manifest = json.loads((adapter / "manifest.json").read_text())
    log = pd.read_json(adapter / "training_log.jsonl", lines=True).set_index("step")
    looks = log["validation_loss"].dropna()
    assert manifest["best_step"] == looks.idxmin() < manifest["steps"] < 40
    assert manifest["validation_loss"] == pytest.approx(looks.min())
    assert manifest["steps"] == manifest["best_step"] + 2 * 5
    assert (manifest["rows"], manifest["rows_validation"]) == (6, 2)
    best = load_file(job.checkpoints / f"checkpoint-{manifest['best_step']}" / WEIGHTS)
    saved = load_file(adapter / WEIGHTS)
    assert saved.keys() == best.keys()
    assert all(saved[name].equal(best[name]) for name in saved)


def test_a_training_that_had_ended_is_not_trained_any_further(
    job: TrainingJob, validated: pd.DataFrame, slow: FineTuningParameters, tmp_path: Path
) -> None:
    job = dataclasses.replace(job, parameters=changed(slow, patience=1, epochs=30))
    fine_tune(job, validated.to_dict("records"), tmp_path / "first")

    fine_tune(job, validated.to_dict("records"), tmp_path / "again")

    for name in (WEIGHTS, "training_log.jsonl"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "first" / name).read_bytes()
    log = pd.read_json(tmp_path / "again/training_log.jsonl", lines=True)
    manifest = json.loads((tmp_path / "again/manifest.json").read_text())
    assert manifest["seconds"] > log["seconds"].iloc[-1] > 0
    assert manifest["energy_wh"] > 0


def test_a_long_training_is_saved_between_two_looks_and_is_the_same(
    job: TrainingJob, pairs: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parameters = changed(job.parameters, epochs=6, evaluations=1)
    short = dataclasses.replace(job, parameters=parameters)
    long = dataclasses.replace(short, checkpoints=tmp_path / "long")
    rows = pairs.to_dict("records")
    fine_tune(short, rows, tmp_path / "undisturbed")
    monkeypatch.setattr(trainer, "CHECKPOINT_AFTER_S", 0)

    fine_tune(long, rows, tmp_path / "saved")

    assert [each.name for each in short.checkpoints.iterdir() if each.is_dir()] == ["checkpoint-6"]
    kept = sorted(each.name for each in long.checkpoints.iterdir() if each.is_dir())
    assert kept == ["checkpoint-4", "checkpoint-5", "checkpoint-6"]
    assert latest_checkpoint(long.checkpoints) == long.checkpoints / "checkpoint-6"
    saved, undisturbed = (tmp_path / name / WEIGHTS for name in ("saved", "undisturbed"))
    assert saved.read_bytes() == undisturbed.read_bytes()


def test_a_training_has_ended_at_its_last_step_or_at_the_end_of_patience() -> None:
    def stopper(looks: int) -> dict[str, dict[str, dict[str, int]]]:
        args, attributes = (
            {"early_stopping_patience": 2},
            {"early_stopping_patience_counter": looks},
        )
        return {"EarlyStoppingCallback": {"args": args, "attributes": attributes}}

    def state(step: int, looks: int | None = None) -> TrainerState:
        callbacks = {} if looks is None else stopper(looks)
        return TrainerState(global_step=step, max_steps=9, stateful_callbacks=callbacks)

    assert [has_ended(state(8)), has_ended(state(9))] == [False, True]
    assert [has_ended(state(8, 1)), has_ended(state(8, 2)), has_ended(state(9, 1))] == [
        False,
        True,
        True,
    ]


def kill_at(instant: float) -> None:
    kill_when(lambda: time.monotonic() > instant)


def kill_when(condition: Callable[[], bool]) -> None:
    """Kill the training process that this process has started, if it still runs."""
    deadline = time.monotonic() + 60
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.002)
    for child in psutil.Process().children():
        if "llamaduo.local_llm.sft" in child.cmdline():
            child.kill()
