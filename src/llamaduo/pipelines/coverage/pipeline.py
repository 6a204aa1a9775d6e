"""Any file of pairs to the three splits of the coverage set."""

from kedro.pipeline import Node, Pipeline

from llamaduo.pipelines.coverage import nodes, splitting


def create_pipeline() -> Pipeline:
    """The coverage pipeline; run by name, and sends no request."""
    steps = [
        Node(
            nodes.check_rows,
            ["raw_pairs", "base_model", "params:coverage", "params:fine_tuning"],
            "checked_rows",
            name="check_rows",
        ),
        Node(
            nodes.select_pairs,
            ["checked_rows", "params:coverage"],
            "coverage_pairs",
            name="select_pairs",
        ),
        Node(
            splitting.assign_splits,
            ["coverage_pairs", "params:coverage", "params:evaluation"],
            "split_pairs",
            name="assign_splits",
        ),
        Node(nodes.take_train, "split_pairs", "coverage_train", name="take_train"),
        Node(nodes.take_test, "split_pairs", "coverage_test", name="take_test"),
        Node(nodes.take_holdout, "split_pairs", "coverage_holdout", name="take_holdout"),
        Node(
            nodes.report_coverage,
            ["checked_rows", "split_pairs", "params:coverage"],
            "coverage_report",
            name="report_coverage",
        ),
    ]
    return Pipeline(steps, namespace="coverage", prefix_datasets_with_namespace=False)
