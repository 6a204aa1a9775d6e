"""From the adapter of an iteration to a release."""

import dataclasses
import json
import logging
from pathlib import Path
from typing import Any

import pandas as pd

from llamaduo.errors import InputError
from llamaduo.files import Content
from llamaduo.local_llm import gguf_inference
from llamaduo.local_llm.base_model import BaseModelSpec, load_tokenizer
from llamaduo.local_llm.chat import Message, encode_prompt, to_messages
from llamaduo.local_llm.gguf import Conversion, converter_versions, gguf_files
from llamaduo.local_llm.inference import DecodingSettings, respond_timed
from llamaduo.local_llm.merging import Merge
from llamaduo.local_llm.modelfile import write_modelfile
from llamaduo.local_llm.parity import Parity, compare
from llamaduo.local_llm.release import ReleaseContent
from llamaduo.parameters import (
    DeploymentParameters,
    EvaluationParameters,
    IterationParameters,
)
from llamaduo.pipelines.evaluation.answering import response_rows
from llamaduo.pipelines.evaluation.assessment import per_prompt, summarise_scores
from llamaduo.pipelines.evaluation.judging import (
    SCORES,
    ask_judge,
    parse_judgements,
    score_prompts,
)
from llamaduo.service_llm.jury import Judge
from llamaduo.statistics import describe_gain, paired_gains, rounded

logger = logging.getLogger(__name__)

MERGED = "merged"
"""The format of the merged model, beside the quantizations of the GGUF files."""


def merge_model(
    provenance: dict[str, Any],
    base_model: BaseModelSpec,
    adapter: Path,
    evaluation: EvaluationParameters,
) -> Content:
    """Add the adapter to its base model, loaded afresh in bfloat16.

    Args:
        provenance: Of the iteration that is admitted.
    """
    return Merge(base_model, adapter, _decoding(evaluation))


def check_parity(
    base_model: BaseModelSpec,
    adapter: Path,
    merged_model: Path,
    responses: pd.DataFrame,
    coverage_test: pd.DataFrame,
    deployment: DeploymentParameters,
) -> list[dict[str, Any]]:
    """Hold the merged model against the adapter, over responses to test prompts.

    Returns:
        ``Parity`` for each type in which both compute, with ``min_agreement``.

    Raises:
        InputError: They agree less than they must.
        ReleaseError: By the merged model's tokenizer a prompt is another.
    """
    read = choose_compared(responses, coverage_test, deployment.prompts)
    found = []
    for dtype, least in deployment.min_agreement.items():
        if least is None:
            continue
        conversations, texts = _conversations(read), list(read["response"])
        parity = compare(base_model, adapter, merged_model, conversations, texts, dtype)
        require_agreement(parity, least)
        found.append({**dataclasses.asdict(parity), "min_agreement": least})
    return found


def convert_to_gguf(
    merged_model: Path, parity: list[dict[str, Any]], deployment: DeploymentParameters
) -> Content:
    """Write the merged model as GGUF in each quantization.

    Args:
        parity: Of a merged model that has passed.
    """
    return Conversion(merged_model, deployment.name, deployment.quantizations)


def answer_in_formats(
    merged_model: Path,
    gguf_model: Path,
    coverage_test: pd.DataFrame,
    evaluation: EvaluationParameters,
) -> tuple[pd.DataFrame, dict[str, float]]:
    """Let the merged model and each GGUF file answer the test prompts as in an evaluation.

    Before it is asked, a GGUF file has to make the same prompts and to end at the same tokens.

    Returns:
        ``FormatResponses``; by format the tokens per second, without the loading of the model.

    Raises:
        ReleaseError: A GGUF file does not hold what the merged model does.
    """
    samples, decoding = evaluation.responses_per_prompt, _decoding(evaluation)
    conversations = _conversations(coverage_test)
    tokenizer = load_tokenizer(BaseModelSpec(str(merged_model)))
    prompts = [encode_prompt(tokenizer, messages) for messages in conversations]
    answered = {MERGED: respond_timed(merged_model, prompts, samples, decoding)}
    for quantization, file in gguf_files(gguf_model).items():
        logger.info("asking %s", file.name)
        gguf_inference.check_inside(file, merged_model, conversations)
        answered[quantization] = gguf_inference.respond(file, prompts, samples, decoding)
    tables, speeds = [], {}
    for name, (responses, seconds) in answered.items():
        table = response_rows(list(coverage_test["id"]), responses, decoding)
        tables.append(table.assign(format=name))
        speeds[name] = float(table["tokens"].sum() / seconds)
    return pd.concat(tables, ignore_index=True), speeds


def judge_formats(
    format_responses: pd.DataFrame,
    format_speeds: dict[str, float],
    merged_model: Path,
    gguf_model: Path,
    coverage_test: pd.DataFrame,
    judge_prompt: str,
    judge: Judge,
    evaluation: EvaluationParameters,
    iteration: IterationParameters,
) -> list[dict[str, Any]]:
    """Judge each format as an iteration is: what quantization costs.

    Returns:
        By format ``format``, ``bytes``, ``tokens_per_s`` and the summary of its scores; ``cost``,
        by score the points per prompt that it has less than the merged model
        (``describe_gain``), null for that one itself.
    """
    sizes = {MERGED: _bytes(merged_model.glob("*.safetensors"))}
    sizes |= {name: _bytes([file]) for name, file in gguf_files(gguf_model).items()}
    rows: list[dict[str, Any]] = []
    merged: dict[str, dict[str, float | None]] = {}
    for name, responses in format_responses.groupby("format", sort=False):
        replies = ask_judge(responses, coverage_test, judge_prompt, judge, evaluation, iteration)
        judgements = parse_judgements(replies)
        scores = score_prompts(judgements, responses, coverage_test, evaluation)
        own = per_prompt(scores)
        merged = merged or own
        losses = {each: describe_gain(paired_gains(merged[each], own[each])) for each in SCORES}
        rows.append(
            {
                "format": name,
                "bytes": sizes[str(name)],
                "tokens_per_s": rounded(format_speeds[str(name)]),
                **summarise_scores(scores, evaluation, evaluation.alpha),
                "cost": None if own is merged else losses,
            }
        )
    return rows


def assemble_release(
    provenance: dict[str, Any],
    adapter: Path,
    merged_model: Path,
    gguf_model: Path,
    parity: list[dict[str, Any]],
    model_card: str,
    data_card: str,
    deployment: DeploymentParameters,
    evaluation: EvaluationParameters,
) -> Content:
    """Put together what leaves the project, with a manifest of what it is made of."""
    trained = json.loads((adapter / "manifest.json").read_text(encoding="utf-8"))
    files = gguf_files(gguf_model)
    modelfile = write_modelfile(
        deployment.name, merged_model, [*files.values()], _decoding(evaluation)
    )
    return ReleaseContent(
        merged_model,
        [*files.values()],
        texts={
            "README.md": model_card,
            "DATA_CARD.md": data_card,
            **({"gguf/Modelfile": modelfile} if files else {}),
        },
        facts={
            "name": deployment.name,
            "base_model": {
                name: trained["base_model"][name]
                for name in ("name_or_path", "revision", "vocabulary")
            },
            "adapter_sha256": trained["sha256"],
            "made_with": converter_versions(),
            "parity": parity,
            "provenance": provenance,
        },
    )


def choose_compared(
    responses: pd.DataFrame, coverage_test: pd.DataFrame, prompts: int
) -> pd.DataFrame:
    """The first response to each of so many test prompts, beside its prompt."""
    first = responses[responses["sample"] == 1]
    return coverage_test[["id", "system", "prompt"]].merge(first, on="id").head(prompts)


def require_agreement(parity: Parity, least: float) -> None:
    """Refuse a merged model that agrees less with the adapter.

    Raises:
        InputError: With both figures.
    """
    logger.info(
        "parity in %s: %.2f %% of %d tokens, largest difference of a logit %.3g",
        parity.dtype,
        parity.agreement,
        parity.tokens,
        parity.largest_difference,
    )
    if parity.agreement < least:
        raise InputError(
            f"in {parity.dtype} the merged model finds the same token likeliest as the adapter at "
            f"{parity.agreement:.2f} % of {parity.tokens} tokens, expected {least:g} % or more "
            f"(deployment.min_agreement); nothing is released"
        )


def _conversations(pairs: pd.DataFrame) -> list[list[Message]]:
    return [to_messages(row["system"], row["prompt"]) for row in pairs.to_dict("records")]


def _decoding(evaluation: EvaluationParameters) -> DecodingSettings:
    return DecodingSettings(**evaluation.decoding.model_dump())


def _bytes(files: Any) -> int:
    return sum(file.stat().st_size for file in files)
