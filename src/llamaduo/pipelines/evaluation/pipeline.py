"""An adapter to a verdict.

Longer than other files: a node is its function with the names of what it reads and writes, and
whoever looks for the way of an entry wants to see all of them in one place.
"""

from kedro.pipeline import Node, Pipeline

from llamaduo.pipelines.evaluation import (
    answering,
    assessment,
    audit,
    audit_cases,
    comparison,
    counterfactuals,
    decision,
    judging,
    plots,
    reports,
    student_audit,
    weak_spots,
)


def create_pipeline() -> Pipeline:
    """The evaluation pipeline."""
    return Pipeline(
        [
            *_scoring("coverage_test", ""),
            *_auditing(),
            *_auditing_fairness(),
            *_deciding(),
            *_scoring("holdout_prompts", "holdout_"),
            *_recording(),
        ],
        namespace="evaluation",
        prefix_datasets_with_namespace=False,
    )


def _scoring(pairs: str, prefix: str) -> list[Node]:
    """Answer, judge and score the prompts of one set of pairs."""
    return [
        Node(
            answering.answer_prompts,
            ["inference", "base_model", "adapter", pairs, "params:evaluation"],
            f"{prefix}responses",
            name=f"answer_{prefix}prompts",
        ),
        Node(
            judging.ask_judge,
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
            judging.parse_judgements,
            f"{prefix}judge_replies",
            f"{prefix}judgements",
            name=f"parse_{prefix}judgements",
        ),
        Node(
            judging.score_prompts,
            [f"{prefix}judgements", f"{prefix}responses", pairs, "params:evaluation"],
            f"{prefix}scores",
            name=f"score_{prefix}prompts",
        ),
    ]


def _auditing() -> list[Node]:
    """See whether the judge can be relied on."""
    return [
        Node(
            comparison.describe_measurement,
            ["judge", "judge_prompt", "inference", "coverage_test", "params:evaluation"],
            "measurement",
            name="describe_measurement",
        ),
        Node(
            audit_cases.choose_audit_cases,
            ["responses", "coverage_test", "human_scores", "previous_audit_cases"],
            "audit_cases",
            name="choose_audit_cases",
        ),
        Node(
            audit_cases.ask_audited_judge,
            ["audit_cases", "judge_prompt", "judge", "params:evaluation", "params:iteration"],
            "audit_replies",
            name="ask_audited_judge",
        ),
        Node(
            judging.parse_judgements,
            "audit_replies",
            "audit_judgements",
            name="parse_audit_judgements",
        ),
        Node(
            audit.audit_judge,
            [
                "audit_cases",
                "audit_judgements",
                "judge_replies",
                "judgements",
                "responses",
                "measurement",
                "previous_iteration_history",
                "params:loop",
                "params:evaluation",
            ],
            "judge_audit",
            name="audit_judge",
        ),
    ]


def _auditing_fairness() -> list[Node]:
    """See whether the local LLM treats groups alike."""
    return [
        Node(
            student_audit.audit_answers,
            ["responses", "coverage_test", "audit_groups", "params:loop", "params:fairness"],
            "answer_audit",
            name="audit_answers",
        ),
        Node(
            counterfactuals.choose_counterfactuals,
            [
                "assessment",
                "pair_audit",
                "answer_audit",
                "coverage_test",
                "audit_groups",
                "params:loop",
                "params:fairness",
            ],
            "counterfactuals",
            name="choose_counterfactuals",
        ),
        Node(
            counterfactuals.answer_counterfactuals,
            ["inference", "base_model", "adapter", "counterfactuals", "params:evaluation"],
            "counterfactual_responses",
            name="answer_counterfactuals",
        ),
        Node(
            student_audit.audit_student,
            [
                "counterfactuals",
                "counterfactual_responses",
                "screened_coverage",
                "pair_audit",
                "answer_audit",
                "audit_groups",
                "params:fairness",
            ],
            "fairness_audit",
            name="audit_student",
        ),
    ]


def _deciding() -> list[Node]:
    """See what the scores prove, and decide."""
    return [
        Node(
            assessment.assess_scores,
            [
                "scores",
                "previous_iteration_history",
                "synthesis_report",
                "training_report",
                "judge_audit",
                "measurement",
                "params:evaluation",
                "params:fine_tuning",
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
            [
                "assessment",
                "confirmation",
                "fairness_audit",
                "params:loop",
                "params:fairness",
            ],
            "verdict",
            name="reach_verdict",
        ),
    ]


def _recording() -> list[Node]:
    """Hand on what the next iteration needs, and tell people."""
    return [
        Node(
            decision.keep_best_adapter,
            ["adapter", "previous_best_adapter", "verdict"],
            "best_adapter",
            name="keep_best_adapter",
        ),
        Node(
            weak_spots.find_weak_spots,
            ["scores", "coverage_test", "coverage_train"],
            "weak_spots",
            name="find_weak_spots",
        ),
        Node(
            reports.count_costs,
            ["verdict", "service_llm", "judge", "params:iteration"],
            "costs",
            name="count_costs",
        ),
        Node(
            reports.report_privacy,
            [
                "synthesis_report",
                "preference_judge_replies",
                "judge_replies",
                "audit_replies",
                "holdout_judge_replies",
                "judge",
            ],
            "privacy_report",
            name="report_privacy",
        ),
        Node(
            decision.record_iteration,
            [
                "previous_iteration_history",
                "training_set",
                "synthesis_report",
                "training_report",
                "scores",
                "assessment",
                "judge_audit",
                "costs",
                "verdict",
            ],
            "iteration_history",
            name="record_iteration",
        ),
        Node(
            comparison.compare_baselines,
            [
                "known_baselines",
                "base_model",
                "service_llm",
                "measurement",
                "coverage_train",
                "scores",
            ],
            "baseline_comparison",
            name="compare_baselines",
        ),
        Node(
            reports.choose_worst_responses,
            ["responses", "judgements", "coverage_test", "service_llm", "judge"],
            "worst_responses",
            name="choose_worst_responses",
        ),
        Node(
            plots.plot_scores,
            ["iteration_history", "baseline_comparison", "params:evaluation"],
            "score_plot",
            name="plot_scores",
        ),
        Node(
            plots.plot_categories,
            ["assessment", "params:evaluation"],
            "category_plot",
            name="plot_categories",
        ),
        Node(
            plots.plot_diversity,
            "iteration_history",
            "diversity_plot",
            name="plot_diversity",
        ),
        Node(
            reports.write_iteration_report,
            [
                "iteration_history",
                "confirmation",
                "baseline_comparison",
                "synthesis_report",
                "fairness_audit",
                "privacy_report",
                "training_report",
                "worst_responses",
                "score_plot",
                "category_plot",
                "diversity_plot",
                "training_curve",
                "params:evaluation",
            ],
            "evaluation_report",
            name="write_iteration_report",
        ),
        Node(
            reports.write_loop_report,
            [
                "iteration_history",
                "confirmation",
                "baseline_comparison",
                "synthesis_report",
                "fairness_audit",
                "privacy_report",
                "score_plot",
                "diversity_plot",
                "params:evaluation",
            ],
            "loop_report",
            name="write_loop_report",
        ),
    ]
