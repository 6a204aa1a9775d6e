"""A training set to an adapter, with its log."""

from kedro.pipeline import Node, Pipeline

from llamaduo.pipelines.fine_tuning import nodes


def create_pipeline() -> Pipeline:
    """The fine_tuning pipeline."""
    steps = [
        Node(
            nodes.choose_due_pairs,
            ["training_set", "synthesis_report", "params:fine_tuning", "params:iteration"],
            "due_pairs",
            name="choose_due_pairs",
        ),
        Node(
            nodes.audit_due_pairs,
            [
                "base_model",
                "due_pairs",
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
                "due_pairs",
                "training_audit",
                "checkpoints",
                "params:fine_tuning",
                "params:iteration",
            ],
            "adapter",
            name="fine_tune",
        ),
        Node(
            nodes.report_training,
            ["adapter", "training_audit"],
            "training_report",
            name="report_training",
        ),
        Node(nodes.read_training_log, "adapter", "training_log", name="read_training_log"),
        Node(
            nodes.plot_training_curve, "training_log", "training_curve", name="plot_training_curve"
        ),
    ]
    return Pipeline(steps, namespace="fine_tuning", prefix_datasets_with_namespace=False)
