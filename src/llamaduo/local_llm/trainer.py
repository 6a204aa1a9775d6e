"""What differs from TRL's trainer: the loss on a CPU, the log, and when to stop."""

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
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from trl import SFTTrainer

from llamaduo.local_llm.base_model import device
from llamaduo.local_llm.checkpoints import mark_complete
from llamaduo.local_llm.rows import IGNORED
from llamaduo.local_llm.training import TrainingError
from llamaduo.progress import ProgressDisplay

CHECKPOINT_AFTER_S = 300
"""The most that a killed training has to do again, about."""


def trainer_class() -> type[WatchedTrainer]:
    """TRL's trainer; on a CPU the one that leaves the prompts out of the head.

    With several processes TRL's own loss also shares the token count between them.
    """
    alone_on_a_cpu = device().type == "cpu" and PartialState().num_processes == 1
    return AnswerTokenTrainer if alone_on_a_cpu else WatchedTrainer


class WatchedTrainer(SFTTrainer):
    """TRL's trainer, which can say what pairs its last step has seen."""

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


class AnswerTokenTrainer(WatchedTrainer):
    """Computes logits only where a response token is predicted; the loss is TRL's.

    Without a GPU kernel TRL puts every token of the prompts through the language model's head
    too, which takes a small model as long as all its layers.
    """

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        """Mean cross-entropy over the response tokens of the whole (accumulated) batch."""
        targets = inputs["labels"][:, 1:]  # (batch, seq - 1)
        answered = (targets != IGNORED).any(dim=0).nonzero().squeeze(1)  # (positions,)
        logits = model(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            use_cache=False,
            logits_to_keep=answered,
        ).logits  # (batch, positions, vocabulary)
        total: torch.Tensor = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1).float(),
            targets[:, answered].flatten(),
            ignore_index=IGNORED,
            reduction="sum",
        )
        if num_items_in_batch is None:
            num_items_in_batch = (targets != IGNORED).sum()
        return total / num_items_in_batch


class TrainingWatch(TrainerCallback):
    """Times the steps, shows the progress, and stops a training whose loss runs away.

    It also brings each checkpoint to the disk, and asks for one where a step takes long.
    """

    def __init__(self, display: ProgressDisplay, vocabulary: int, trainer: WatchedTrainer) -> None:
        self._display = display
        self._trainer = trainer
        # Guessing evenly over the whole vocabulary costs half of it.
        self._highest_loss = 2 * math.log(vocabulary)
        self._start = self._saved = time.perf_counter()
        self._begun_at = 0
        self._validation = ""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Count the seconds on from those of the checkpoint."""
        self._begun_at = state.global_step
        seconds = state.log_history[-1]["seconds"] if state.log_history else 0.0
        self._saved = time.perf_counter()
        self._start = self._saved - seconds

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Add the time to the log's last entry, and see that its numbers are sound."""
        state.log_history[-1]["seconds"] = round(time.perf_counter() - self._start, 2)
        if logs is None or not {"loss", "eval_loss"} & logs.keys():
            return
        loss, gradient = logs.get("loss", logs.get("eval_loss", math.nan)), logs.get("grad_norm", 0)
        if not (math.isfinite(loss) and math.isfinite(gradient) and loss < self._highest_loss):
            raise TrainingError(
                f"training ran away at step {state.global_step} of {state.max_steps}, in the batch "
                f"of {', '.join(self._trainer.last_pairs())}: loss {loss:.4g}, gradient norm "
                f"{gradient:.4g}; look at these pairs, lower learning_rate "
                f"({args.learning_rate:g}), or raise warmup ({args.warmup_steps:g})"
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
