"""An adapter to a verdict."""

from kedro.pipeline import Node, Pipeline

from llamaduo.pipelines.evaluation import decision, nodes, reports


def create_pipeline() -> Pipeline:
    """The evaluation pipeline."""
    verdict = [
        Node(
            decision.assess_scores,
            [
                "scores",
                "previous_iteration_history",
                "synthesis_report",
                "params:evaluation",
                "params:loop",
            ],
            "assessment",
            name="assess_scores",
        ),
        Node(
            decision.open_holdout,
            ["assessment", "coverage_holdout"],
            "holdout_prompts",
            name="open_holdout",
        ),
        Node(
            decision.confirm,
            ["holdout_scores", "params:evaluation"],
            "confirmation",
            name="confirm",
        ),
        Node(
            decision.reach_verdict,
            ["assessment", "confirmation", "previous_iteration_history", "params:loop"],
            "verdict",
            name="reach_verdict",
        ),
    ]
    record = [
        Node(
            reports.choose_baselines,
            ["known_baselines", "base_model", "service_llm", "judge", "coverage_test"],
            "comparable_baselines",
            name="choose_baselines",
        ),
        Node(
            decision.record_iteration,
            ["previous_iteration_history", "training_set", "scores", "assessment", "verdict"],
            "iteration_history",
            name="record_iteration",
        ),
        Node(
            reports.plot_scores,
            ["iteration_history", "comparable_baselines", "params:evaluation"],
            "score_plot",
            name="plot_scores",
        ),
        Node(
            reports.write_report,
            [
                "iteration_history",
                "confirmation",
                "comparable_baselines",
                "synthesis_report",
                "params:evaluation",
            ],
            "evaluation_report",
            name="write_report",
        ),
    ]
    return Pipeline(
        [
            *_scoring("coverage_test", ""),
            *verdict,
            *_scoring("holdout_prompts", "holdout_"),
            *record,
        ],
        namespace="evaluation",
        prefix_datasets_with_namespace=False,
    )


def _scoring(pairs: str, prefix: str) -> list[Node]:
    """Answer, judge and score the prompts of one set of pairs."""
    return [
        Node(
            nodes.answer_prompts,
            ["base_model", "adapter", pairs, "params:evaluation"],
            f"{prefix}responses",
            name=f"answer_{prefix}prompts",
        ),
        Node(
            nodes.ask_judge,
            [
                f"{prefix}responses",
                pairs,
                "judge_prompt",
                "judge",
                "params:evaluation",
                "params:iteration",
            ],
            f"{prefix}judge_replies",
            name=f"ask_{prefix}judge",
        ),
        Node(
            nodes.parse_judgements,
            f"{prefix}judge_replies",
            f"{prefix}judgements",
            name=f"parse_{prefix}judgements",
        ),
        Node(
            nodes.score_prompts,
            [f"{prefix}judgements", pairs, "params:evaluation"],
            f"{prefix}scores",
            name=f"score_{prefix}prompts",
        ),
    ]
