"""Seeds to pairs to a longer training set."""

from kedro.pipeline import Node, Pipeline

from llamaduo.pipelines.data_synthesis import nodes, screening


def create_pipeline() -> Pipeline:
    """The data_synthesis pipeline."""
    steps = [
        Node(
            nodes.choose_seeds,
            [
                "coverage_train",
                "ready_pairs",
                "previous_synthesis_report",
                "params:data_synthesis",
            ],
            "seeds",
            name="choose_seeds",
        ),
        Node(
            nodes.ask_service_llm,
            [
                "seeds",
                "synthesis_prompt",
                "service_llm",
                "params:data_synthesis",
                "params:iteration",
            ],
            "synthesis_replies",
            name="ask_service_llm",
        ),
        Node(
            nodes.parse_pairs,
            [
                "synthesis_replies",
                "coverage_train",
                "ready_pairs",
                "previous_synthesis_report",
                "params:data_synthesis",
            ],
            "parsed_pairs",
            name="parse_pairs",
        ),
        Node(
            screening.screen_pairs,
            [
                "parsed_pairs",
                "previous_training_set",
                "coverage_test",
                "coverage_holdout",
                "params:data_synthesis",
            ],
            "screened_pairs",
            name="screen_pairs",
        ),
        Node(
            nodes.extend_training_set,
            ["screened_pairs", "previous_training_set", "coverage_train", "params:iteration"],
            "training_set",
            name="extend_training_set",
        ),
        Node(
            nodes.report_synthesis,
            [
                "screened_pairs",
                "synthesis_replies",
                "previous_synthesis_report",
                "params:data_synthesis",
            ],
            "synthesis_report",
            name="report_synthesis",
        ),
    ]
    return Pipeline(steps, namespace="data_synthesis", prefix_datasets_with_namespace=False)
