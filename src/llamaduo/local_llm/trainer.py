"""What differs from TRL's trainer: the loss on a CPU, the log, and when to stop."""

from __future__ import annotations

import math
import time
from typing import Any

import torch
from accelerate import PartialState
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from trl import SFTTrainer

from llamaduo.local_llm.base_model import device
from llamaduo.local_llm.training import TrainingError
from llamaduo.progress import ProgressDisplay

IGNORED = -100
"""The label of a token that is not trained on (PyTorch's ``ignore_index``)."""


def trainer_class() -> type[SFTTrainer]:
    """TRL's trainer; on a CPU the one that leaves the prompts out of the head.

    With several processes TRL's own loss also shares the token count between them.
    """
    alone_on_a_cpu = device().type == "cpu" and PartialState().num_processes == 1
    return AnswerTokenTrainer if alone_on_a_cpu else SFTTrainer


class AnswerTokenTrainer(SFTTrainer):
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
    """Keeps the log, shows the progress, and stops the training when its loss runs away."""

    def __init__(self, display: ProgressDisplay, vocabulary: int) -> None:
        self.log: list[dict[str, float]] = []
        self._display = display
        self._start = time.perf_counter()
        # Guessing evenly over the whole vocabulary costs half of it.
        self._highest_loss = 2 * math.log(vocabulary)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Take up a step's numbers; what the trainer logs after the last step is no step."""
        if logs is None or "loss" not in logs:
            return
        loss, gradient = logs["loss"], logs["grad_norm"]
        if not (math.isfinite(loss) and math.isfinite(gradient) and loss < self._highest_loss):
            raise TrainingError(
                f"training ran away at step {state.global_step} of {state.max_steps}: loss "
                f"{loss:.4g}, gradient norm {gradient:.4g}; lower learning_rate "
                f"({args.learning_rate:g}) or raise warmup ({args.warmup_steps:g})"
            )
        self.log.append(
            {
                "step": state.global_step,
                "epoch": round(logs["epoch"], 4),
                "loss": loss,
                "learning_rate": logs["learning_rate"],
                "grad_norm": gradient,
                "seconds": round(time.perf_counter() - self._start, 2),
                "tokens": state.num_input_tokens_seen,
            }
        )
        self._display.show(state.global_step, state.max_steps, f"loss {loss:.3f}")
