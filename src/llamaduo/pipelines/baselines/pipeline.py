"""What the constant answer, the untouched base model and the service LLM reach on the test set."""

from kedro.pipeline import Node, Pipeline

from llamaduo.pipelines.baselines import nodes


def create_pipeline() -> Pipeline:
    """The baselines pipeline; run by name."""
    steps = [
        Node(
            nodes.answer_constantly,
            ["coverage_train", "coverage_test"],
            "constant_responses",
            name="answer_constantly",
        ),
        Node(
            nodes.answer_zero_shot,
            ["inference", "base_model", "coverage_test", "params:evaluation"],
            "zero_shot_responses",
            name="answer_zero_shot",
        ),
        Node(
            nodes.answer_few_shot,
            [
                "inference",
                "base_model",
                "coverage_train",
                "coverage_test",
                "params:evaluation",
                "params:baselines",
            ],
            "few_shot_responses",
            name="answer_few_shot",
        ),
        Node(
            nodes.answer_by_service_llm,
            ["service_llm", "coverage_test", "params:baselines", "params:iteration"],
            "service_llm_responses",
            name="answer_by_service_llm",
        ),
        Node(
            nodes.gather_responses,
            [
                "constant_responses",
                "zero_shot_responses",
                "few_shot_responses",
                "service_llm_responses",
            ],
            "baseline_responses",
            name="gather_responses",
        ),
        Node(
            nodes.judge_baselines,
            [
                "baseline_responses",
                "coverage_test",
                "judge_prompt",
                "judge",
                "service_llm",
                "params:evaluation",
                "params:iteration",
            ],
            "baseline_scores",
            name="judge_baselines",
        ),
        Node(
            nodes.describe_baselines,
            [
                "baseline_scores",
                "base_model",
                "service_llm",
                "judge",
                "judge_prompt",
                "inference",
                "coverage_train",
                "coverage_test",
                "params:evaluation",
            ],
            "baselines",
            name="describe_baselines",
        ),
    ]
    return Pipeline(steps, namespace="baselines", prefix_datasets_with_namespace=False)
