"""Every parameter can be reached from the command line, and is told apart from a typo."""

import ast
import re
from pathlib import Path

import pytest
import yaml
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project
from pydantic import BaseModel

from llamaduo import parameters
from llamaduo.commands.start import split_params
from llamaduo.errors import InputError
from llamaduo.input_check import wrong_parameters
from llamaduo.mistakes import _model_in
from llamaduo.service_llm import budget

REPOSITORY = Path(__file__).parents[1]
GROUPS = {
    "loop": parameters.LoopParameters,
    "data_synthesis": parameters.SynthesisParameters,
    "fine_tuning": parameters.FineTuningParameters,
    "evaluation": parameters.EvaluationParameters,
    "fairness": parameters.FairnessParameters,
    "baselines": parameters.BaselineParameters,
    "coverage": parameters.CoverageParameters,
}
# As typed; what stands in one list holds together.
TYPED = [
    """loop.max_iterations=7 loop.signal=assessment loop.ledger=other loop.budget.usd=1.5
    loop.budget.tokens=1000 loop.budget.requests=10 loop.carry.previous_x=x
    data_synthesis.pairs_per_iteration=[24,48] data_synthesis.pairs_per_request=4
    data_synthesis.max_tokens=99 data_synthesis.temperature=0.5 data_synthesis.max_similarity=0.6
    data_synthesis.max_test_similarity=0.5 data_synthesis.aimed_share=0.25
    data_synthesis.strategies.harder=2 data_synthesis.languages=[en,de] data_synthesis.min_yield=0.1
    data_synthesis.seed=9 data_synthesis.check.json_schema.type=object
    data_synthesis.judging.min_score=70 data_synthesis.judging.best_of=2
    data_synthesis.judging.max_tokens=64 data_synthesis.judging.temperature=0.1
    fine_tuning.start=base fine_tuning.replay_share=0.2 fine_tuning.learning_rate=0.0001
    fine_tuning.epochs=[2,1] fine_tuning.min_steps=3 fine_tuning.max_steps=30
    fine_tuning.validation_share=0.2 fine_tuning.evaluations=2 fine_tuning.patience=1
    fine_tuning.batch_size=2 fine_tuning.gradient_accumulation_steps=2 fine_tuning.warmup=0.2
    fine_tuning.max_length=512 fine_tuning.max_too_long=0.1 fine_tuning.lora_rank=8
    fine_tuning.lora_alpha=8 fine_tuning.lora_dropout=0.1 fine_tuning.target_modules=[q_proj]
    fine_tuning.use_rslora=true fine_tuning.use_dora=true fine_tuning.neftune_noise_alpha=5
    fine_tuning.seed=3 fine_tuning.launcher=accelerate
    fine_tuning.accelerate_config=conf/accelerate/cpu_2_processes.yaml
    fine_tuning.preference.enabled=true fine_tuning.preference.prompts=5
    fine_tuning.preference.responses_per_prompt=2 fine_tuning.preference.chosen=best_response
    fine_tuning.preference.margin=5 fine_tuning.preference.beta=0.2
    fine_tuning.preference.learning_rate=0.001 fine_tuning.preference.epochs=2
    evaluation.target_similarity=70 evaluation.target_precision=71 evaluation.verdict=mean
    evaluation.alpha=0.1 evaluation.threshold=50 evaluation.min_judged=0.5 evaluation.min_prompts=9
    evaluation.responses_per_prompt=2 evaluation.judgements_per_response=3
    evaluation.judge_max_tokens=99 evaluation.judge_temperature=1 evaluation.patience=2
    evaluation.margin=4 evaluation.power=0.9 evaluation.decoding.temperature=0.6
    evaluation.decoding.top_p=0.9 evaluation.decoding.max_new_tokens=32
    evaluation.decoding.batch_size=8 evaluation.decoding.seed=4
    fairness.on_excess=stop fairness.sample=10 fairness.alpha=0.1 fairness.seed=2
    fairness.limits.label_gap=1 fairness.limits.balance_gap=2 fairness.limits.flip_rate=3
    fairness.limits.score_gap=4 fairness.limits.toxic_excess=5 fairness.limits.stereotype_excess=6
    fairness.limits.refusal_excess=7 fairness.limits.hedge_excess=8
    baselines.shots=1 baselines.max_tokens=64
    coverage.columns.prompt=question coverage.on_bad_rows=drop coverage.turns=last
    coverage.shares.train=0.4 coverage.shares.test=0.3 coverage.shares.holdout=0.3
    coverage.max_similarity=0.8 coverage.seed=5 coverage.system=Route""",
    "data_synthesis.check.callable=operator.eq",
]


def fields(model, above):
    """Path of each field, models inside models followed."""
    for name, field in model.model_fields.items():
        inner = _model_in(field.annotation)
        yield from fields(inner, f"{above}.{name}") if inner else [f"{above}.{name}"]


EVERY = {path for group, model in GROUPS.items() for path in fields(model, group)}


@pytest.fixture(scope="module", autouse=True)
def project():
    bootstrap_project(REPOSITORY)


def given_by(typed):
    """The parameters of a run with ``--params``."""
    given = split_params(None, None, ",".join(typed))
    with KedroSession.create(project_path=REPOSITORY, runtime_params=given) as session:
        return session.load_context().params


def value_at(params, path):
    value = params
    for part in path.split("."):
        value = value[part] if isinstance(value, dict) else getattr(value, part)
    return value


@pytest.mark.parametrize("typed", TYPED, ids=["most", "callable"])
def test_the_command_line_reaches_each_parameter(typed):
    params = given_by(typed.split())

    for each in typed.split():
        path, _, text = each.partition("=")
        given = yaml.safe_load(text)
        value = value_at(params, path)
        if path.endswith("callable"):
            assert value(1, 1)
        else:
            assert (str(value) if isinstance(value, Path) else value) == given, path


def test_no_parameter_is_left_out_of_what_was_typed():
    typed = {each.partition("=")[0] for text in TYPED for each in text.split()}

    assert [path for path in sorted(EVERY) if not any(t.startswith(path) for t in typed)] == []


def places(model, above):
    """Each level at which a key can be mistyped."""
    yield above, model
    for name, field in model.model_fields.items():
        if inner := _model_in(field.annotation):
            yield from places(inner, f"{above}.{name}")


@pytest.mark.parametrize(
    ("path", "model"),
    [pytest.param(*each, id=each[0]) for group in GROUPS for each in places(GROUPS[group], group)],
)
def test_a_typo_at_any_level_is_named_with_the_key_that_is_meant(path, model):
    key = next(iter(model.model_fields))
    typo = f"{key[:-1]}{key[-1]}x"

    with pytest.raises(InputError) as refused:
        given_by([f"{path}.{typo}=1"])

    assert f"{path}.{typo}: there is no such key; did you mean {key}?" in str(refused.value)
    assert "pydantic" not in str(refused.value)


@pytest.mark.parametrize(
    ("group", "values", "sentence"),
    [
        ("evaluaton", {"x": 1}, "parameters: there is no group 'evaluaton'; did you mean eval"),
        ("evaluation", 3, "evaluation: input should be a valid dictionary or"),
        ("loop", {"max_iterations": 0}, "loop.max_iterations: input should be greater than or"),
        ("loop", {"carry": {}}, "loop.max_iterations: is missing"),
        (
            "data_synthesis",
            {"strategies": {"harder": -1}},
            "data_synthesis.strategies.harder: input should be greater than 0, it is -1",
        ),
        (
            "data_synthesis",
            {"pairs_per_iteration": [1, -2]},
            "data_synthesis.pairs_per_iteration.1: input should be greater than or equal to 0",
        ),
        (
            "data_synthesis",
            {"pairs_per_iteration": -5},
            "data_synthesis.pairs_per_iteration: input should be greater than or equal to 0 or "
            "input should be a valid list, it is -5",
        ),
        (
            "data_synthesis",
            {"check": {}},
            "data_synthesis.check: a check is either a json_schema or a callable",
        ),
        ("coverage", {"columns": {"promt": "x"}}, "coverage.columns.promt: input should be 'id'"),
    ],
)
def test_a_value_that_cannot_be_used_is_named_by_its_key(group, values, sentence):
    assert any(each.startswith(sentence) for each in wrong_parameters({group: values}))


def test_all_mistakes_are_named_at_once():
    given = {"evaluation": {"x": 1}, "fine_tuning": {"y": 2}}

    said = "\n".join(wrong_parameters(given))

    assert "evaluation.x" in said
    assert "fine_tuning.y" in said


@pytest.mark.parametrize(
    "file", sorted(REPOSITORY.glob("conf/base/parameters_*.yml")), ids=lambda file: file.stem
)
def test_each_key_of_a_parameter_file_has_a_comment(file):
    """On its line or above it; a comment also holds for what stands inside."""
    lines = file.read_text(encoding="utf-8").splitlines()
    bare, explained_above = [], None
    for before, line in zip(["", *lines], lines, strict=False):
        key = re.match(r"( *)([a-z_]+):", line)
        if not key:
            continue
        depth = len(key[1])
        if explained_above is not None and depth <= explained_above:
            explained_above = None
        if before.strip().startswith("#") or "#" in line:
            explained_above = depth if explained_above is None else explained_above
        elif explained_above is None and depth > 0:
            bare.append(key[2])

    assert bare == []


@pytest.mark.parametrize("module", [parameters, budget])
def test_each_field_of_a_parameter_model_has_a_docstring(module):
    """The literal after it, which editors and readers take for its docstring."""
    tree = ast.parse(Path(module.__file__).read_text(encoding="utf-8"))
    bare = []
    for model in (node for node in tree.body if isinstance(node, ast.ClassDef)):
        if not issubclass(getattr(module, model.name), BaseModel):
            continue
        for field, after in zip(model.body, [*model.body[1:], None], strict=True):
            if isinstance(field, ast.AnnAssign) and not isinstance(after, ast.Expr):
                bare.append(f"{model.name}.{field.target.id}")

    assert bare == []
