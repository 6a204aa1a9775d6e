"""What a person is told in words."""

from typing import Any

from llamaduo.parameters import EvaluationParameters
from llamaduo.pipelines.evaluation.comparison import SERVICE_LLM
from llamaduo.service_llm.jury import are_one_model

REASONS = {
    "unfair": "the fairness audit found more than its limits allow",
    "target": "the target is reached, and the holdout confirms it",
    "budget": "the budget of the loop is spent; what was bought is kept",
    "judge_failed": "the judge cannot be relied on; let another model judge, or mend judge_prompt",
    "target_not_confirmed": "the test set meets the target, but the holdout does not confirm it",
    "regression": "a score has fallen twice in a row",
    "no_new_data": "the new pairs could not be used, or nearly all repeated known ones",
    "plateau": "the last iterations brought no proven gain",
    "max_iterations": "the last iteration that was allowed has ended without reaching the target",
    None: "the target is not reached yet",
}
STAND_IN_NOTE = (
    "The {role} here was {model}, an embedded stand-in that knows this one demo task; it stands "
    "for no real service LLM."
)
ADVISORY = "advisory: so few prompts leave much to chance"
SAME_MODEL_NOTE = "{model} is both teacher and judge here; a model favours what it taught."


def conclude(verdict: dict[str, Any]) -> str:
    """The verdict in a line, for headings and logs."""
    advice = f" ({ADVISORY})" if verdict["advisory"] else ""
    said = REASONS[verdict["reason"]]
    if verdict["reason"] is None and verdict["obstacles"]:
        said = "no verdict, these scores cannot be relied on"
    return f"Iteration {verdict['iteration']}: {said}{advice}"


def explain_verdict(
    latest: dict[str, Any],
    confirmation: dict[str, Any],
    baseline_comparison: dict[str, Any],
    evaluation: EvaluationParameters,
) -> list[str]:
    """The verdict for whoever must decide, in plain sentences."""
    verdict, assessment = latest["verdict"], latest["assessment"]
    sentences = [headline(verdict, assessment, evaluation)]
    if verdict["advisory"]:
        sentences.append(
            f"This is advice and no proof: fewer than {evaluation.min_prompts} prompts leave much "
            "to chance."
        )
    sentences += [f"{each[0].upper()}{each[1:]}." for each in verdict["obstacles"]]
    if alarms := verdict["alarms"]:
        first = f"Fairness: {len(alarms)} gap(s) over their limit and statistically significant"
        sentences.append(f"{first}; the first is {alarms[0]}.")
    if not verdict["obstacles"]:  # else no target counts as met or missed
        sentences += _score_sentences("test prompts", assessment, evaluation)
    ratios = baseline_comparison["local_to_service_llm"]
    if ratios and ratios["precision"]["ratio"] is not None:
        low, high = ratios["precision"]["interval"]
        within = "" if low is None else f" (95 % interval {100 * low:.0f} to {100 * high:.0f} %)"
        sentences.append(
            f"On these its precision is {100 * ratios['precision']['ratio']:.0f} % of the service "
            f"LLM's own{within}."
        )
    sentences += doubt_service_llm(baseline_comparison["rows"], evaluation)
    if confirmation:
        told = _score_sentences("holdout prompts, which steered nothing,", confirmation, evaluation)
        sentences += told
    if verdict["next_tuning"] == "preference" and latest["training"]["tuning"] == "sft":
        sentences.append(
            "The last iterations brought no proven gain: the next one tunes by preference, from "
            f"the best so far, number {verdict['best_iteration']}."
        )
    if verdict["stop"]:
        sentences.append(f"The loop has ended: {REASONS[verdict['reason']]}.")
        if verdict["best_iteration"] != verdict["iteration"]:
            sentences.append(f"Its best iteration is number {verdict['best_iteration']}.")
    return sentences


def headline(
    verdict: dict[str, Any], assessment: dict[str, Any], evaluation: EvaluationParameters
) -> str:
    """Whether the local LLM may take over, in a sentence."""
    if verdict["reason"] == "unfair":
        return "No: groups are not treated alike, and that is to end this loop."
    if verdict["target_reached"] and verdict["advisory"]:
        return "Perhaps: the local LLM reaches the target, but on too few prompts to rely on."
    if verdict["target_reached"]:
        return "Yes: on the evidence of this loop the local LLM may take over."
    if verdict["obstacles"]:
        return "No verdict: these scores cannot be relied on."
    missed = [
        name
        for name, target in evaluation.targets.items()
        if assessment[name]["mean"] is None or assessment[name]["mean"] < target
    ]
    if missed:
        return f"No: the local LLM is not good enough yet in {' and '.join(missed)}."
    return "Not proven: on average the local LLM is over the target, but that may be chance."


def _score_sentences(
    where: str, summary: dict[str, Any], evaluation: EvaluationParameters
) -> list[str]:
    """One sentence per score; none without a mean."""
    sentences = []
    for name, target in evaluation.targets.items():
        score = summary[name]
        if score["mean"] is None:
            continue
        decisive = score[evaluation.verdict]
        met = "met" if decisive is not None and decisive >= target else "not met"
        sure = ""
        if score["lower_bound"] is not None:
            confidence = 100 * (1 - summary["alpha"])
            sure = f", at least {score['lower_bound']:.1f} with {confidence:.4g} % confidence"
        sentences.append(
            f"On {summary['prompts']} {where} its {name} is {score['mean']:.1f} of 100{sure}; the "
            f"target of {target:g} is {met}."
        )
    return sentences


def doubt_service_llm(rows: list[dict[str, Any]], evaluation: EvaluationParameters) -> list[str]:
    """A sentence where the service LLM itself is, beyond chance, below a target.

    Args:
        rows: Of the baselines.
    """
    below = [
        f"a {name} of {row[name]['mean']:.1f}, where the target is {target:g}"
        for row in rows
        if row["name"] == SERVICE_LLM
        for name, target in evaluation.targets.items()
        if row[name]["standard_error"] is not None
        and row[name]["mean"] + 2 * row[name]["standard_error"] < target
    ]
    if not below:
        return []
    return [
        f"The service LLM itself has {' and '.join(below)}: either the target is more than it can "
        "give, or it is not asked here as it was for the references; look whether prompts and "
        "system messages are those that it had."
    ]


def synthesis_notes(synthesis_report: dict[str, Any]) -> list[str]:
    """What became of the new pairs of an iteration."""
    if not (asked := synthesis_report["asked"]):
        return []
    dropped = _listed(synthesis_report["dropped"])
    return [
        f"New pairs of this iteration: {synthesis_report['kept']} of {asked} asked for"
        f"{f'; dropped: {dropped}' if dropped else ''}."
    ]


def coverage_notes(synthesis_report: dict[str, Any]) -> list[str]:
    """Which coverage pairs are left out."""
    if left_out := _listed(synthesis_report["coverage_left_out"]):
        return [f"Coverage pairs that are neither shown nor trained on: {left_out}."]
    return []


def privacy_notes(privacy_report: dict[str, Any]) -> list[str]:
    """What was replaced in what was sent and trained on, or that nothing was."""
    taught, judged = privacy_report["service_llm"], privacy_report["judge"]
    notes = privacy_warnings(privacy_report)
    if taught["detect"] != "off":
        notes.append(
            "Surrogates stand for the personal details in what was sent to the service LLM and in "
            f"what trains ({taught['detect']}): for {_listed(taught['coverage']) or 'none'} in the "
            f"coverage pairs, {_listed(taught['pairs']) or 'none'} in the new pairs, "
            f"{_listed(taught['requests']) or 'none'} more in the requests."
        )
    if set(judged["detect"]) != {"off"}:
        replaced = _listed(judged["requests"]) or "none"
        notes.append(f"In what was sent to the judge surrogates stand for {replaced}.")
    return notes


def privacy_warnings(privacy_report: dict[str, Any]) -> list[str]:
    """Where nothing is replaced."""
    warnings = []
    if privacy_report["service_llm"]["detect"] == "off":
        warnings.append(
            "Privacy is off: pairs are sent to the service LLM, and train, as they are."
        )
    if "off" in privacy_report["judge"]["detect"]:
        warnings.append("Privacy is off for a judge: it is sent prompts and responses as they are.")
    return warnings


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in counts.items())


def notes_on_models(setup: dict[str, Any], *, asked_teacher: bool) -> list[str]:
    """Who the service LLM and the judge were, where that belongs beside every score."""
    teacher, judges = setup["service_llm"], setup["judge"]
    roles = [("service LLM", teacher)] if asked_teacher else []
    roles += [("judge", model) for model in judges]
    notes = [STAND_IN_NOTE.format(role=r, model=model) for r, model in roles if "stand-in" in model]
    if asked_teacher:
        same = [model for model in judges if are_one_model(teacher, model)]
        notes += [SAME_MODEL_NOTE.format(model=model) for model in same]
    return notes
