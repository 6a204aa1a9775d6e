"""What differs from TRL's trainers: the loss on a CPU, the rows, the log, and when to stop."""

from __future__ import annotations

import math
import time
from collections import deque
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import broadcast, gather_object
from datasets import Dataset
from transformers import (
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from trl import DPOTrainer, SFTTrainer
from trl.trainer.utils import use_adapter

from llamaduo.local_llm.base_model import device
from llamaduo.local_llm.checkpoints import mark_complete
from llamaduo.local_llm.energy import EnergyMeter
from llamaduo.local_llm.losses import answer_losses
from llamaduo.local_llm.rows import IGNORED
from llamaduo.local_llm.training import Method, TrainingError
from llamaduo.progress import ProgressDisplay

CHECKPOINT_AFTER_S = 300
"""The most that a killed training has to do again, about."""


def trainer_class(method: Method) -> type[Watched]:
    """TRL's trainer; on a CPU the one that leaves the prompts out of the head.

    With several processes TRL's own loss also shares the token count between them.
    """
    alone_on_a_cpu = device().type == "cpu" and PartialState().num_processes == 1
    if method == "dpo":
        return AnswerTokenPreferenceTrainer if alone_on_a_cpu else PreferenceTrainer
    return AnswerTokenTrainer if alone_on_a_cpu else WatchedTrainer


class Watched(Trainer):
    """A trainer that can say what pairs its last step has seen."""

    def __init__(self, *, train_dataset: Dataset, **arguments: Any) -> None:
        super().__init__(train_dataset=train_dataset, **arguments)
        self._rows = train_dataset
        self._seen: deque[dict[str, torch.Tensor]] = deque(
            maxlen=self.args.gradient_accumulation_steps
        )

    def training_step(
        self, model: torch.nn.Module, inputs: dict[str, torch.Tensor], *args: Any, **arguments: Any
    ) -> torch.Tensor:
        """TRL's, with the batch kept."""
        self._seen.append(inputs)
        step: Any = super().training_step
        loss: torch.Tensor = step(model, inputs, *args, **arguments)
        return loss

    def last_pairs(self) -> list[str]:
        """Ids of the pairs of the last step; all processes have to ask for them."""
        seen = {
            tuple(ids[mask.bool()].tolist())
            for batch in self._seen
            for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)
        }
        here = [row["id"] for row in self._rows if tuple(row["input_ids"]) in seen]
        everywhere: list[str] = gather_object(here)
        return everywhere


class WatchedTrainer(Watched, SFTTrainer):
    """TRL's trainer of SFT."""


class PreferenceTrainer(Watched, DPOTrainer):
    """TRL's trainer of DPO, for rows that are tokens already.

    Its reference policy is a frozen copy of the adapter that the model comes with.
    """

    def _prepare_dataset(self, dataset: Dataset, *args: Any, **arguments: Any) -> Dataset:
        # TRL would tokenise texts by itself, and so not as inference does.
        return dataset


class AnswerTokenTrainer(WatchedTrainer):
    """Computes a batch by ``answer_losses``; the loss is TRL's."""

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        """Mean cross-entropy over the response tokens of the whole (accumulated) batch."""
        total = answer_losses(model, inputs, inputs["labels"]).sum()
        if num_items_in_batch is None:
            num_items_in_batch = (inputs["labels"][:, 1:] != IGNORED).sum()
        return total / num_items_in_batch


class AnswerTokenPreferenceTrainer(PreferenceTrainer):
    """The same for DPO; the loss and the rewards in the log are TRL's."""

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        """Mean over the pairs of - log sigmoid(reward of the chosen - reward of the rejected)."""
        labels = inputs["input_ids"].masked_fill(inputs["completion_mask"] == 0, IGNORED)
        now = answer_losses(model, inputs, labels)  # (2 * pairs,), the chosen first
        with torch.no_grad(), use_adapter(self.accelerator.unwrap_model(model), "ref"):
            at_the_start = answer_losses(model, inputs, labels)
        chosen, rejected = (self.beta * (at_the_start - now)).chunk(2)
        margins = chosen - rejected
        metrics = self._metrics["train" if model.training else "eval"]
        for name, values in {
            "rewards/rejected": rejected,
            "rewards/margins": margins,
            "rewards/accuracies": (margins > 0).float(),
        }.items():
            metrics[name].append(values.mean().item())
        loss: torch.Tensor = -torch.nn.functional.logsigmoid(margins).mean()
        return loss


def spent(state: TrainerState) -> dict[str, float]:
    """What a training had taken when its state was written, its start-up left out."""
    last = state.log_history[-1] if state.log_history else {}
    return {name: last.get(name, 0.0) for name in ("seconds", "energy_wh")}


class TrainingWatch(TrainerCallback):
    """Times the steps, shows the progress, and stops a training whose loss runs away.

    It also brings each checkpoint to the disk, and asks for one where a step takes long.
    """

    def __init__(
        self, display: ProgressDisplay, vocabulary: int, trainer: Watched, meter: EnergyMeter
    ) -> None:
        self._display = display
        self._meter = meter
        self._trainer = trainer
        # Guessing evenly over the whole vocabulary costs half of it.
        self._highest_loss = 2 * math.log(vocabulary)
        self._start = self._saved = time.perf_counter()
        self._begun_at = 0
        self._before = spent(TrainerState())
        self._validation = ""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Count on from what the checkpoint had taken."""
        self._begun_at = state.global_step
        self._before = spent(state)
        self._saved = time.perf_counter()
        self._start = self._saved - self._before["seconds"]

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Add what was spent to the log's last entry, and see that its numbers are sound."""
        energy = self._before["energy_wh"] + self._meter.watt_hours()
        seconds = round(time.perf_counter() - self._start, 2)
        state.log_history[-1] |= {"seconds": seconds, "energy_wh": round(energy, 4)}
        if logs is None or not {"loss", "eval_loss"} & logs.keys():
            return
        loss, gradient = logs.get("loss", logs.get("eval_loss", math.nan)), logs.get("grad_norm", 0)
        if not (math.isfinite(loss) and math.isfinite(gradient) and loss < self._highest_loss):
            where = (
                f"in the batch of {', '.join(self._trainer.last_pairs())}"
                if "loss" in logs
                else "on the validation pairs"
            )
            raise TrainingError(
                f"training ran away at step {state.global_step} of {state.max_steps}, {where}: "
                f"loss {loss:.4g}, gradient norm {gradient:.4g}; look at the pairs, lower "
                f"learning_rate ({args.learning_rate:g}), or raise warmup ({args.warmup_steps:g})"
            )
        if "eval_loss" in logs:
            self._validation = f", validation {loss:.3f}"
        else:
            note = f"loss {loss:.3f}{self._validation}"
            self._display.show(state.global_step, state.max_steps, note, self._begun_at)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Ask for a checkpoint after some minutes without one, by the first process's clock."""
        late = time.perf_counter() - self._saved > CHECKPOINT_AFTER_S
        if broadcast(torch.tensor(late, dtype=torch.uint8, device=args.device)):
            control.should_save = True

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Mark the checkpoint as whole, when all processes have written their part of it."""
        self._saved = time.perf_counter()
        PartialState().wait_for_everyone()
        if state.is_world_process_zero:
            mark_complete(Path(str(args.output_dir)) / f"checkpoint-{state.global_step}")
