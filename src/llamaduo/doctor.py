"""What a run would meet on this machine: every check in seconds, nothing generated.

All checks in one place, in the order in which they are shown, and longer than other files for it.
"""

import importlib.metadata
import os
import platform
import shutil
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, NamedTuple

from kedro.framework.context import KedroContext
from kedro.io import DatasetError
from kedro.pipeline import Pipeline

from llamaduo import input_check, loop_estimate
from llamaduo.datasets.judge import JudgeDataset
from llamaduo.datasets.service_llm import ServiceLLMDataset
from llamaduo.history import all_loops
from llamaduo.history_display import megabytes
from llamaduo.iterations import Loop
from llamaduo.local_llm.base_model import BaseModelSpec
from llamaduo.local_llm.shape import Shape, read_shape
from llamaduo.loop_estimate import Plan
from llamaduo.provenance import PACKAGES
from llamaduo.service_llm.budget import Account

Status = Literal["ok", "warning", "problem"]
LOOKED_AT = 1000
"""Pairs whose tokens are counted, of each split."""
TOO_LARGE_FOR_A_CPU = 1_000_000_000
"""Parameters."""
REPORTS = 11_000_000
"""Bytes that an iteration writes beside its two adapters, as on the demo."""
CHECKPOINTS = 9
"""Times an adapter: three checkpoints, each with the optimizer's two moments."""
PARTS = ("coverage_train", "coverage_test", "coverage_holdout")
NEEDED = {*PARTS, "synthesis_prompts", "judge_prompt"}
"""For an estimate."""


class Finding(NamedTuple):
    """A line of the table."""

    check: str
    status: Status
    found: str
    advice: str = ""


class Patient(NamedTuple):
    """What all checks look at."""

    context: KedroContext
    catalog: Any
    loaded: dict[str, Any]
    problems: dict[str, list[str]]
    loops: list[Loop]


def examine(context: KedroContext, pipeline: Pipeline) -> Iterator[Finding]:
    """All checks, each finding as soon as it is known."""
    catalog: Any = context.catalog
    loaded, problems = input_check.load_inputs(pipeline, catalog, context.params["loop"])

    loops = all_loops(catalog, pipeline)
    patient = Patient(context, catalog, loaded, problems, loops)
    yield from _versions(patient)
    yield from _hardware(loaded.get("base_model"))
    spec: BaseModelSpec | None = loaded.get("base_model")
    shape, fine_tuning = None, context.params["fine_tuning"]
    if spec:
        try:
            shape = read_shape(spec, fine_tuning.target_modules, fine_tuning.lora_rank)
            yield _model(spec, shape)
        except (OSError, ValueError) as error:
            yield Finding("base_model", "problem", str(error))
    yield from _disk(patient, shape)
    yield from _entries(patient)
    yield from _data(patient, shape)
    yield from _endpoints(patient)
    prompts = loaded.get("synthesis_prompts")
    if prompts and (unknown := context.params["data_synthesis"].without_text(prompts)):
        yield Finding("strategies", "problem", unknown)
    elif loaded.keys() >= NEEDED:
        yield _cost(patient)
        if shape:
            yield _time(patient, shape)


def _versions(patient: Patient) -> Iterator[Finding]:
    now = {name: importlib.metadata.version(name) for name in PACKAGES}
    shown = ", ".join(f"{name} {version}" for name, version in now.items())
    yield Finding("versions", "ok", f"Python {platform.python_version()}, {shown}")
    if patient.loops:
        loop = patient.loops[-1]
        before = loop.ledger.starts(loop.name)[-1]["versions"]
        changed = [
            f"{name} {before[name]} → {version}"
            for name, version in now.items()
            if name in before and before[name] != version
        ]
        if changed:
            yield Finding(
                "drift",
                "warning",
                f"since loop {loop.name}: {', '.join(changed)}",
                "its scores and yours may differ by it; make install brings the locked versions",
            )


def _hardware(spec: BaseModelSpec | None) -> Iterator[Finding]:
    import torch

    from llamaduo.local_llm.base_model import compute_dtype

    dtype = str(compute_dtype()).removeprefix("torch.")
    if torch.cuda.is_available():
        gpu = torch.cuda.get_device_properties(torch.cuda.current_device())
        found = f"{gpu.name}, {megabytes(gpu.total_memory)}; computes in {dtype}"
    else:
        found = (
            f"none: training and answers run on {os.cpu_count()} cores in {dtype}, which suits "
            "models of some hundred million parameters"
        )
    yield Finding("GPU", "ok", found)
    if spec is not None and spec.load_in_4bit:
        yield _four_bit()


def _four_bit() -> Finding:
    """Quantises a matrix as QLoRA does."""
    import torch

    from llamaduo.local_llm.base_model import compute_dtype, device

    try:
        from bitsandbytes.functional import dequantize_4bit, quantize_4bit

        weights = torch.ones(64, 64, dtype=compute_dtype(), device=device())
        dequantize_4bit(*quantize_4bit(weights, quant_type="nf4"))
    except (ImportError, RuntimeError) as error:
        return Finding(
            "4-bit",
            "problem",
            f"bitsandbytes cannot quantise on this machine ({error})",
            "install it for this GPU, or set load_in_4bit: false of base_model",
        )
    return Finding("4-bit", "ok", f"bitsandbytes quantises on {device().type}")


def _model(spec: BaseModelSpec, shape: Shape) -> Finding:
    import torch

    found = (
        f"{spec.portable_name}: {shape.parameters / 1e6:.0f} M parameters, with a chat template; "
        f"an adapter has {megabytes(shape.adapter)}"
    )
    if shape.parameters > TOO_LARGE_FOR_A_CPU and not torch.cuda.is_available():
        advice = "on a CPU a step takes many seconds; use a GPU, or a smaller model"
        return Finding("base_model", "warning", found, advice)
    return Finding("base_model", "ok", found)


def _disk(patient: Patient, shape: Shape | None) -> Iterator[Finding]:
    settings = patient.context.config_loader["globals"]
    root, iterations = str(settings["data"]), patient.context.params["loop"].max_iterations
    needs = {"checkpoints": CHECKPOINTS * shape.adapter} if shape else {}
    advice = "kedro loops prune removes old iterations"
    if "://" in root:
        yield Finding("disk", "ok", f"{root} is object storage, whose space is not looked at")
        root, advice = str(settings.get("local_data", root)), "make room, or move local_data"
    elif shape:
        needs[f"{iterations} iterations"] = iterations * (2 * shape.adapter + REPORTS)
    if "://" not in root:
        yield _space(Path(patient.context.project_path), root, needs, advice)


def _space(project: Path, root: str, needs: dict[str, int], advice: str) -> Finding:
    """Bytes that are free beside those that are needed, by what needs them."""
    folder = (project / root).resolve()
    while not folder.exists():
        folder = folder.parent
    free, need = shutil.disk_usage(folder).free, sum(needs.values())
    found = f"{megabytes(free)} free at {root}"
    if needs:
        parts = ", ".join(f"{what} {megabytes(size)}" for what, size in needs.items())
        found += f"; a loop needs about {megabytes(need)} ({parts})"
    status: Status = "problem" if free < need else "warning" if free < 2 * need else "ok"
    return Finding("disk", status, found, advice if status != "ok" else "")


def _entries(patient: Patient) -> Iterator[Finding]:
    for name, problems in patient.problems.items():
        for problem in problems:
            yield Finding(name, "problem", problem.removeprefix(f"{name}: "))
    for warning in input_check.stray_entries(patient.catalog, patient.context.params["loop"]):
        yield Finding("catalog", "warning", warning, "a name that is not in use changes nothing")


def _data(patient: Patient, shape: Shape | None) -> Iterator[Finding]:
    loaded, params = patient.loaded, patient.context.params
    least = params["evaluation"].min_prompts
    for name in PARTS:
        if name not in loaded:
            continue
        count = len(loaded[name])
        if name != "coverage_train" and count < least:
            advice = f"{least} or more make the verdict more than advisory"
            yield Finding(name, "warning", f"{count} pairs", advice)
        else:
            yield Finding(name, "ok", f"{count} pairs")
    for problem in input_check.shared_prompts(loaded):
        yield Finding("splits", "problem", problem)
    if shape and "coverage_train" in loaded:
        yield from _lengths(patient)
    if shape and "coverage_test" in loaded:
        yield from _cut_off(patient, shape)


def _lengths(patient: Patient) -> Iterator[Finding]:
    from llamaduo.local_llm.lengths import refuse_long_pairs

    tuning = patient.context.params["fine_tuning"]
    pairs = _sample(patient.loaded["coverage_train"])
    rows = zip(pairs["system"], pairs["prompt"], pairs["response"], strict=True)
    refused = refuse_long_pairs(patient.loaded["base_model"], rows, tuning.max_length)
    share = sum(map(bool, refused)) / len(refused)
    if share:
        status: Status = "problem" if share > tuning.max_too_long else "warning"
        yield Finding(
            "lengths",
            status,
            f"{share:.0%} of {len(refused)} coverage-train pairs cannot be learned, the first: "
            f"{next(filter(None, refused))}",
            "raise fine_tuning.max_length, or shorten them",
        )


def _cut_off(patient: Patient, shape: Shape) -> Iterator[Finding]:
    limit = patient.context.params["evaluation"].decoding.max_new_tokens
    responses = list(_sample(patient.loaded["coverage_test"])["response"])
    tokens = shape.tokenizer(responses, add_special_tokens=False)["input_ids"]
    if longer := sum(len(each) >= limit for each in tokens):
        yield Finding(
            "lengths",
            "warning",
            f"{longer} of {len(tokens)} test references are longer than an answer may be ({limit} "
            "tokens)",
            "raise evaluation.decoding.max_new_tokens",
        )


def _sample(pairs: Any) -> Any:
    return pairs.sample(min(len(pairs), LOOKED_AT), random_state=0)


def _endpoints(patient: Patient) -> Iterator[Finding]:
    settings = patient.context.params["loop"]
    models = input_check.service_llms(patient.loaded)
    for name, model in models.items():
        if model.gate.settings.detect == "off":
            advice = "set privacy to patterns or presidio"
            yield Finding(name, "warning", "is sent your pairs as they are", advice)
    for warning in input_check.same_models(models):
        yield Finding("judge", "warning", warning)
    for sentence in input_check.unpriced(models, settings):
        yield Finding("budget", "problem", sentence)
    account = Account(name="kedro doctor")
    for names, problem in input_check.ask_each(models, account, patient.loaded):
        model = models[names[0]]
        found = problem or f"{model.model} at {model.base_url} can be asked"
        yield Finding(", ".join(names), "problem" if problem else "ok", found)
    if inference := patient.loaded.get("inference"):
        problem = inference.check()
        engine = inference.describe()["engine"]
        yield Finding("inference", "problem" if problem else "ok", problem or engine)


def _plan(patient: Patient) -> Plan:
    loaded, params = patient.loaded, patient.context.params
    return Plan(
        loop=params["loop"],
        synthesis=params["data_synthesis"],
        fine_tuning=params["fine_tuning"],
        evaluation=params["evaluation"],
        fairness=params["fairness"],
        coverage={name: loaded[name] for name in PARTS},
        ready=len(loaded.get("ready_pairs", ())),
    )


def _with_refused(patient: Patient) -> dict[str, Any]:
    """Also service LLMs that cannot be asked, such as for want of a key: they have a price."""
    found = dict(patient.loaded)
    for name in ("service_llm", "judge"):
        with suppress(DatasetError):  # its entry cannot be made, which another line says
            dataset = patient.catalog.get(name)
            if name not in found and isinstance(dataset, ServiceLLMDataset | JudgeDataset):
                found[name] = dataset.unchecked()
    return found


def _cost(patient: Patient) -> Finding:
    plan, models = _plan(patient), input_check.service_llms(_with_refused(patient))
    if not models:
        return Finding("cost", "warning", "unknown until service_llm and judge can be made")
    prompts = patient.loaded["synthesis_prompts"], patient.loaded["judge_prompt"]
    estimates = loop_estimate.estimate_requests(plan, *prompts, models)
    parts = [
        f"{name} {each.requests} requests, {each.tokens:.0f} tokens, "
        + ("price unknown" if each.usd is None else f"${each.usd:.2f}")
        for name, each in estimates.items()
    ]
    total = {
        "usd": sum(each.usd or 0.0 for each in estimates.values()),
        "tokens": sum(each.tokens for each in estimates.values()),
        "requests": sum(each.requests for each in estimates.values()),
    }
    caps = plan.loop.budget.model_dump()
    over = [name for name, cap in caps.items() if cap is not None and total[name] > cap]
    found = f"about, for {plan.loop.max_iterations} iterations: {'; '.join(parts) or 'none'}"
    if over:
        return Finding(
            "cost", "warning", found, f"the cap loop.budget.{over[0]} will probably end it"
        )
    return Finding("cost", "ok", found)


def _time(patient: Patient, shape: Shape) -> Finding:
    plan = _plan(patient)
    described = str(patient.catalog.get("base_model")._describe())
    for loop in reversed(patient.loops):
        start = loop.ledger.starts(loop.name)[-1]
        here = start.get("host") == socket.gethostname()
        complete = loop.ledger.last_complete() or ("", 0)
        is_alike = start["inputs"].get("base_model") == described and complete[0] == loop.name
        if here and is_alike and (seconds := loop_estimate.seconds_by(loop, plan)):
            return Finding(
                "time",
                "ok",
                f"about {seconds / 60:.0f} min for {plan.loop.max_iterations} iterations, as loop "
                f"{loop.name} took on this machine",
            )
    lengths = loop_estimate.mean_lengths(shape.tokenizer, _sample(patient.loaded["coverage_train"]))
    minutes = loop_estimate.rough_seconds(plan, shape.parameters, lengths) / 60
    return Finding(
        "time",
        "ok",
        f"about {max(minutes, 1):.0f} min for {plan.loop.max_iterations} iterations, rough, within "
        "a factor of 3, by the speed of a matrix product; requests not counted",
    )
