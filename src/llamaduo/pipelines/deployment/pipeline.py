"""The adapter of an iteration to a release."""

from kedro.pipeline import Node, Pipeline

from llamaduo.iterations import OF_THE_BEST
from llamaduo.pipelines.deployment import admission, model_card, nodes


def create_pipeline() -> Pipeline:
    """The deployment pipeline; run by name."""
    steps = [
        Node(
            admission.admit_iteration,
            [
                "verdict",
                "measurement",
                "ledger",
                "judge",
                "judge_prompt",
                "inference",
                "coverage_test",
                "params:evaluation",
                "params:deployment",
                "params:iteration",
            ],
            "provenance",
            name="admit_iteration",
        ),
        Node(
            nodes.merge_model,
            ["provenance", "base_model", "adapter", "params:evaluation"],
            "merged_model",
            name="merge_model",
        ),
        Node(
            nodes.check_parity,
            [
                "base_model",
                "adapter",
                "merged_model",
                "responses",
                "coverage_test",
                "params:deployment",
            ],
            "parity",
            name="check_parity",
        ),
        Node(
            nodes.convert_to_gguf,
            ["merged_model", "parity", "params:deployment"],
            "gguf_model",
            name="convert_to_gguf",
        ),
        Node(
            nodes.answer_in_formats,
            ["merged_model", "gguf_model", "coverage_test", "params:evaluation"],
            ["format_responses", "format_speeds"],
            name="answer_in_formats",
        ),
        Node(
            nodes.judge_formats,
            [
                "format_responses",
                "format_speeds",
                "merged_model",
                "gguf_model",
                "coverage_test",
                "judge_prompt",
                "judge",
                "params:evaluation",
                "params:iteration",
            ],
            "format_scores",
            name="judge_formats",
        ),
        Node(
            model_card.write_model_card,
            [
                "provenance",
                "parity",
                "format_scores",
                "iteration_history",
                "confirmation",
                "known_baselines",
                "fairness_audit",
                "privacy_report",
                "base_model",
                "training_set",
                "params:deployment",
            ],
            "model_card",
            name="write_model_card",
        ),
        Node(
            nodes.assemble_release,
            [
                "provenance",
                "adapter",
                "merged_model",
                "gguf_model",
                "parity",
                "model_card",
                "data_card",
                "params:deployment",
                "params:evaluation",
            ],
            "release",
            name="assemble_release",
        ),
    ]
    return Pipeline(
        steps, namespace="deployment", prefix_datasets_with_namespace=False, tags=OF_THE_BEST
    )
