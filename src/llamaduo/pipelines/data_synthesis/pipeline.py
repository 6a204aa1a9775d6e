"""Seeds to pairs to a longer training set."""

from kedro.pipeline import Node, Pipeline

from llamaduo.pipelines.data_synthesis import asking, judging, reading, screening, training_set


def create_pipeline() -> Pipeline:
    """The data_synthesis pipeline."""
    steps = [
        Node(
            screening.screen_coverage,
            [
                "coverage_train",
                "coverage_test",
                "coverage_holdout",
                "base_model",
                "service_llm",
                "params:data_synthesis",
                "params:fine_tuning",
            ],
            "screened_coverage",
            name="screen_coverage",
        ),
        Node(
            asking.choose_seeds,
            [
                "screened_coverage",
                "ready_pairs",
                "synthesis_prompts",
                "previous_synthesis_report",
                "params:data_synthesis",
            ],
            "seeds",
            name="choose_seeds",
        ),
        Node(
            asking.ask_service_llm,
            [
                "seeds",
                "synthesis_prompts",
                "service_llm",
                "params:data_synthesis",
                "params:iteration",
            ],
            "synthesis_replies",
            name="ask_service_llm",
        ),
        Node(
            reading.parse_pairs,
            [
                "synthesis_replies",
                "screened_coverage",
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
                "screened_coverage",
                "previous_training_set",
                "coverage_test",
                "coverage_holdout",
                "base_model",
                "service_llm",
                "params:data_synthesis",
                "params:fine_tuning",
            ],
            "screened_pairs",
            name="screen_pairs",
        ),
        Node(
            judging.judge_pairs,
            [
                "screened_pairs",
                "screened_coverage",
                "pair_judge_prompt",
                "judge",
                "params:data_synthesis",
                "params:iteration",
            ],
            "pair_judge_replies",
            name="judge_pairs",
        ),
        Node(
            judging.select_pairs,
            ["screened_pairs", "pair_judge_replies", "params:data_synthesis"],
            "selected_pairs",
            name="select_pairs",
        ),
        Node(
            training_set.extend_training_set,
            [
                "selected_pairs",
                "previous_training_set",
                "screened_coverage",
                "coverage_test",
                "coverage_holdout",
                "params:iteration",
            ],
            "training_set",
            name="extend_training_set",
        ),
        Node(
            training_set.report_synthesis,
            [
                "selected_pairs",
                "synthesis_replies",
                "pair_judge_replies",
                "screened_coverage",
                "ready_pairs",
                "previous_synthesis_report",
                "service_llm",
                "params:data_synthesis",
            ],
            "synthesis_report",
            name="report_synthesis",
        ),
    ]
    return Pipeline(steps, namespace="data_synthesis", prefix_datasets_with_namespace=False)
