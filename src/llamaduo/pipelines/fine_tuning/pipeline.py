"""A training set to an adapter, with its log; past the plateau, preferences to an adapter."""

from kedro.pipeline import Node, Pipeline

from llamaduo.pipelines.evaluation import judging
from llamaduo.pipelines.fine_tuning import nodes, preference


def create_pipeline() -> Pipeline:
    """The fine_tuning pipeline."""
    steps = [
        *_preferring(),
        Node(
            nodes.choose_due_pairs,
            [
                "training_set",
                "synthesis_report",
                "previous_verdict",
                "params:fine_tuning",
                "params:iteration",
            ],
            "due_pairs",
            name="choose_due_pairs",
        ),
        Node(
            nodes.audit_due_pairs,
            [
                "base_model",
                "due_pairs",
                "preference_pairs",
                "training_set",
                "synthesis_report",
                "params:fine_tuning",
            ],
            "training_audit",
            name="audit_due_pairs",
        ),
        Node(
            nodes.fine_tune,
            [
                "base_model",
                "previous_adapter",
                "previous_best_adapter",
                "due_pairs",
                "preference_pairs",
                "training_audit",
                "checkpoints",
                "previous_verdict",
                "params:fine_tuning",
                "params:iteration",
            ],
            "adapter",
            name="fine_tune",
        ),
        Node(
            nodes.report_training,
            [
                "adapter",
                "training_audit",
                "preference_prompts",
                "preference_judgements",
                "previous_verdict",
            ],
            "training_report",
            name="report_training",
        ),
        Node(
            nodes.read_training_log,
            ["adapter", "training_report"],
            "training_log",
            name="read_training_log",
        ),
        Node(
            nodes.plot_training_curve, "training_log", "training_curve", name="plot_training_curve"
        ),
    ]
    return Pipeline(steps, namespace="fine_tuning", prefix_datasets_with_namespace=False)


def _preferring() -> list[Node]:
    """Answer and judge coverage-train prompts, and see what is to be preferred."""
    return [
        Node(
            preference.choose_preference_prompts,
            ["training_set", "previous_verdict", "params:fine_tuning", "params:iteration"],
            "preference_prompts",
            name="choose_preference_prompts",
        ),
        Node(
            preference.answer_preference_prompts,
            [
                "inference",
                "base_model",
                "previous_best_adapter",
                "preference_prompts",
                "params:fine_tuning",
                "params:evaluation",
            ],
            "preference_responses",
            name="answer_preference_prompts",
        ),
        Node(
            judging.ask_judge,
            [
                "preference_responses",
                "preference_prompts",
                "judge_prompt",
                "judge",
                "params:evaluation",
                "params:iteration",
            ],
            "preference_judge_replies",
            name="ask_preference_judge",
        ),
        Node(
            judging.parse_judgements,
            "preference_judge_replies",
            "preference_judgements",
            name="parse_preference_judgements",
        ),
        Node(
            preference.make_preference_pairs,
            [
                "preference_judgements",
                "preference_responses",
                "preference_prompts",
                "params:fine_tuning",
            ],
            "preference_pairs",
            name="make_preference_pairs",
        ),
    ]
