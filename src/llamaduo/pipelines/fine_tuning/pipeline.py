"""A training set to an adapter, with its log."""

from kedro.pipeline import Node, Pipeline

from llamaduo.pipelines.fine_tuning import nodes


def create_pipeline() -> Pipeline:
    """The fine_tuning pipeline."""
    steps = [
        Node(
            nodes.fine_tune,
            [
                "base_model",
                "previous_adapter",
                "training_set",
                "synthesis_report",
                "params:fine_tuning",
                "params:iteration",
            ],
            "adapter",
            name="fine_tune",
        ),
        Node(nodes.read_training_log, "adapter", "training_log", name="read_training_log"),
        Node(
            nodes.plot_training_curve, "training_log", "training_curve", name="plot_training_curve"
        ),
    ]
    return Pipeline(steps, namespace="fine_tuning", prefix_datasets_with_namespace=False)
