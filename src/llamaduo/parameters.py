"""One pydantic model per parameter group; Kedro builds them before any node runs.

All in one place, and longer than other files for it: this is where users look a parameter up.
"""

from collections.abc import Callable, Collection, Sequence
from math import ceil
from typing import Annotated, Any, Literal

from jsonschema.exceptions import SchemaError
from jsonschema.validators import validator_for
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FilePath,
    ImportString,
    NonNegativeInt,
    PositiveFloat,
    StringConstraints,
    field_validator,
    model_validator,
)

from llamaduo.languages import known_languages
from llamaduo.local_llm.accelerate_config import AccelerateConfig
from llamaduo.service_llm.budget import Account, Caps

PerIteration = PositiveFloat | Annotated[list[PositiveFloat], Field(min_length=1)]
"""One value for every iteration, or a list: its n-th value belongs to the n-th iteration, and its
last one to all that follow."""


def for_iteration(value: float | Sequence[float], iteration: int) -> float:
    """The value that holds in an iteration (1, 2, …)."""
    if isinstance(value, Sequence):
        return value[min(iteration, len(value)) - 1]
    return value


class Parameters(BaseModel):
    """The base of all groups: an unknown key is an error, and nothing changes after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class LoopParameters(Parameters):
    """``params:loop``: when to stop, and what an iteration hands to the next one."""

    max_iterations: int = Field(ge=1)
    """The loop ends after this many iterations, whatever they score."""
    signal: str = "verdict"
    """The catalog entry whose ``stop`` ends the loop."""
    ledger: str = "ledger"
    """The catalog entry that holds what the loop has committed."""
    budget: Caps = Caps()
    """The most that one loop may spend on service LLMs: usd, tokens, requests."""
    carry: dict[str, str]
    """Entry that reads the previous iteration: entry whose version it reads."""


class IterationParameters(Parameters):
    """``params:iteration``: set by the runner, never by a person."""

    index: int = Field(1, ge=1)
    """1 for the first iteration of a loop."""
    loop: str = ""
    """The loop's name; empty where there is none."""
    account: Account = Account()
    """Who pays for its requests: the loop."""


class TaskCheck(Parameters):
    """What each response must satisfy to be trained on; one of the two."""

    json_schema: dict[str, Any] | None = None
    """The response must be JSON that this schema accepts."""
    callable: ImportString[Callable[[str, str], bool]] | None = None
    """``module.function``, called with prompt and response; what raises is a failed check."""

    @model_validator(mode="after")
    def is_usable(self) -> "TaskCheck":
        """Exactly one check, and a schema that is one."""
        if (self.json_schema is None) == (self.callable is None):
            raise ValueError("a check is either a json_schema or a callable")
        if self.json_schema is not None:
            try:
                validator_for(self.json_schema).check_schema(self.json_schema)
            except SchemaError as error:
                raise ValueError(f"json_schema is no JSON schema: {error.message}") from error
        return self


class JudgingParameters(Parameters):
    """How the judge picks among new pairs; scores are 0–100."""

    min_score: float = Field(ge=0, le=100)
    """A pair with less is dropped as poor."""
    best_of: int = Field(1, ge=1)
    """Of so many pairs of one request the best is kept; 1 keeps all that are not poor."""
    max_tokens: int = Field(256, ge=1)
    """The most tokens that the judge may answer with."""
    temperature: float | None = Field(0.0, ge=0, le=2)
    """None leaves it to the endpoint."""


class SynthesisParameters(Parameters):
    """``params:data_synthesis``."""

    pairs_per_iteration: NonNegativeInt | Annotated[list[NonNegativeInt], Field(min_length=1)] = 400
    """New pairs to ask for in the second iteration and each later one; the first trains on the
    coverage set alone. A list holds one number per iteration, from the second on."""
    pairs_per_request: int = Field(8, ge=1)
    """Pairs that one request asks for."""
    max_tokens: int = Field(2048, ge=1)
    """The most tokens that the service LLM may answer with."""
    temperature: float | None = Field(1.0, ge=0, le=2)
    """None leaves it to the endpoint."""
    max_similarity: float = Field(0.7, gt=0, le=1)
    """ROUGE-L F1 from which two prompts are near-duplicates (Self-Instruct, Wang et al. 2023)."""
    max_test_similarity: float = Field(0.7, gt=0, le=1)
    """The same against test and holdout prompts."""
    aimed_share: float = Field(0.0, ge=0, le=1)
    """Share of the requests whose seeds are drawn by what the evaluation before found weak; the
    others walk through the whole coverage set. On the demo it does not help (docs/synthesis.md)."""
    strategies: dict[str, PositiveFloat] = Field({"self_instruct": 1.0}, min_length=1)
    """Prompt text of ``synthesis_prompts``: its share of the requests."""
    languages: list[str] | None = Field(None, min_length=1)
    """ISO 639 codes of the languages to keep; None keeps those of the coverage set."""
    check: TaskCheck | None = None
    """The task's own check of a response."""
    judging: JudgingParameters | None = None
    """None spares the judge: every pair that passes the checks is kept."""
    min_yield: float = Field(0.5, ge=0, le=1)
    """A warning is logged if a smaller share of the pairs that were asked for, or of one in
    ``best_of`` of them, is kept."""
    seed: int = 0
    """Orders the coverage-train pairs that are shown to the service LLM."""

    @field_validator("languages")
    @classmethod
    def are_known(cls, languages: list[str] | None) -> list[str] | None:
        """A code that no text can have would drop every pair."""
        if unknown := set(languages or ()) - (known_languages() if languages else set()):
            raise ValueError(
                f"unknown: {', '.join(sorted(unknown))}; expected ISO 639 codes such as en, de, zh"
            )
        return languages

    def without_text(self, prompts: Collection[str]) -> str | None:
        """A sentence on the strategies of which no prompt text has the name, if there are any."""
        unknown = sorted(self.strategies.keys() - set(prompts))
        if not unknown:
            return None
        return (
            f"data_synthesis.strategies names {', '.join(unknown)}, but there is no prompt text of "
            f"that name; there are {', '.join(sorted(prompts))}"
        )

    def new_pairs(self, iteration: int) -> int:
        """Pairs to ask for in an iteration (1, 2, …); none in the first."""
        if iteration == 1:
            return 0
        return int(for_iteration(self.pairs_per_iteration, iteration - 1))


class PreferenceParameters(Parameters):
    """Preference learning past the plateau of SFT (DPO, Rafailov et al. 2023).

    Names as in TRL's ``DPOConfig``; batches, schedule and LoRA are those of the fine-tuning.
    """

    enabled: bool = False
    """False ends a loop at its plateau."""
    prompts: int = Field(200, ge=1)
    """Coverage-train prompts that are answered and judged in each such iteration."""
    responses_per_prompt: int = Field(4, ge=1)
    """Responses to each, drawn as the evaluation draws; greedy decoding gives one."""
    chosen: Literal["reference", "best_response"] = "reference"
    """What is preferred over the worst response to a prompt: its reference, which counts as full
    marks, or the best response."""
    margin: float = Field(10.0, gt=0, le=100)
    """Points (0-100, the mean of both scores) that must lie between the two."""
    beta: float = Field(0.1, gt=0)
    """The higher, the nearer the local LLM stays to what it was (0.1: the paper's and TRL's)."""
    learning_rate: PositiveFloat = 5e-6
    """The highest of the schedule (alignment handbook, zephyr-7b-dpo-qlora)."""
    epochs: PositiveFloat = 1.0
    """Passes over the pairs, as far as the two limits of steps allow (same source)."""


class FineTuningParameters(Parameters):
    """``params:fine_tuning``. Names as in PEFT's ``LoraConfig`` and TRL's ``SFTConfig``."""

    start: Literal["previous", "base"] = "previous"
    """``previous`` goes on from the last adapter with the new pairs and a replay of the old ones;
    ``base`` starts afresh on the whole training set."""
    replay_share: float = Field(0.1, ge=0, le=1)
    """Share of the earlier synthetic pairs that is trained on again; coverage pairs always are."""
    learning_rate: PerIteration
    """The highest of the schedule, a cosine."""
    epochs: PerIteration
    """Passes over the pairs, as far as the two limits of steps allow."""
    min_steps: int = Field(40, ge=1)
    """Few pairs are passed over more often, to have so many steps."""
    max_steps: int = Field(4000, ge=1)
    """Many pairs are passed over less often, or not all of them once."""
    validation_share: float = Field(0.1, ge=0, lt=1)
    """Share of the pairs, by their seeds, that is never trained on: the adapter is that of the
    lowest loss on them."""
    evaluations: int = Field(4, ge=1)
    """How often in a training that loss is looked at."""
    patience: int = Field(2, ge=1)
    """Looks in a row without a lower one that end a training."""
    batch_size: int = Field(4, ge=1)
    """Pairs per step and device."""
    gradient_accumulation_steps: int = Field(1, ge=1)
    """Batches per step."""
    warmup: float = Field(0.1, ge=0, lt=1)
    """Share of the steps in which the learning rate rises."""
    max_length: int = Field(1024, ge=16)
    """Tokens of prompt and response together; a longer pair is left out and counted."""
    max_too_long: float = Field(0.05, ge=0, le=1)
    """The largest share of pairs that may be left out for it."""
    lora_rank: int = Field(16, ge=1)
    """Of the adapter (Hu et al. 2021): the higher, the more it can learn, and the larger it is."""
    lora_alpha: int = Field(32, ge=1)
    """The adapter counts alpha ÷ rank times."""
    lora_dropout: float = Field(0.0, ge=0, lt=1)
    """Share of the adapter's inputs that each step leaves out."""
    target_modules: str | list[str] = "all-linear"
    """The layers that get an adapter: names, a regular expression, or all linear ones."""
    use_rslora: bool = False
    """Scale by alpha ÷ √rank (Kalajdzievski 2023), for high ranks."""
    use_dora: bool = False
    """Learn magnitude and direction apart (Liu et al. 2024)."""
    neftune_noise_alpha: PositiveFloat | None = None
    """Noise on the embeddings while training (Jain et al. 2023)."""
    preference: PreferenceParameters = PreferenceParameters.model_validate({})
    """What follows where SFT has come to its plateau."""
    seed: int = 1
    """Of the training: first weights, order of the pairs, dropout."""
    launcher: Literal["subprocess", "accelerate"] = "subprocess"
    """``subprocess`` trains in one process, ``accelerate`` in several on this machine."""
    accelerate_config: FilePath | None = None
    """What ``accelerate config`` has written; it says how many processes."""

    def steps(self, rows: int, epochs: float, processes: int = 1) -> int:
        """Steps of a training on so many pairs."""
        per_step = self.batch_size * self.gradient_accumulation_steps * processes
        steps = round(epochs * ceil(rows / per_step))
        return min(max(steps, self.min_steps), self.max_steps)

    @model_validator(mode="after")
    def _config_of_the_launcher(self) -> "FineTuningParameters":
        if (self.launcher == "accelerate") != (self.accelerate_config is not None):
            raise ValueError(
                "launcher: accelerate needs an accelerate_config, and it alone; conf/accelerate "
                "has examples"
            )
        if self.accelerate_config is not None:
            AccelerateConfig.read(self.accelerate_config)
        return self


class DecodingParameters(Parameters):
    """How the local LLM answers; part of every score that rests on it."""

    temperature: float = Field(0.7, ge=0)
    """0 decodes greedily."""
    top_p: float = Field(1.0, gt=0, le=1)
    """The likeliest tokens that together have this probability are drawn from."""
    max_new_tokens: int = Field(256, ge=1)
    """A longer response is cut off, and counted."""
    batch_size: int = Field(32, ge=1)
    """Sequences that are generated together."""
    seed: int = 1
    """Of the draws."""


class EvaluationParameters(Parameters):
    """``params:evaluation``. Scores, targets and thresholds are on the judge's scale, 0–100."""

    target_similarity: float = Field(ge=0, le=100)
    """To be reached together with that of the precision."""
    target_precision: float = Field(ge=0, le=100)
    """To be reached together with that of the similarity."""
    verdict: Literal["lower_bound", "mean"] = "lower_bound"
    """``lower_bound``: both one-sided lower bounds reach their target; ``mean``: both means do
    (the rule of the LlamaDuo paper)."""
    alpha: float = Field(0.05, gt=0, lt=0.5)
    """Chance of a false stop over a whole loop; each iteration gets its share of it."""
    threshold: float = Field(80.0, ge=0, le=100)
    """A prompt counts as covered from this score on."""
    min_judged: float = Field(0.98, gt=0, le=1)
    """Share of judgements that must be readable; with less the target cannot be met."""
    min_prompts: int = Field(100, ge=1)
    """With fewer test prompts the verdict is marked advisory."""
    responses_per_prompt: int = Field(1, ge=1)
    """K."""
    judgements_per_response: int = Field(1, ge=1)
    """M."""
    judge_max_tokens: int = Field(256, ge=1)
    """The most tokens of a judgement."""
    judge_temperature: float | None = Field(0.0, ge=0, le=2)
    """None leaves it to the endpoint."""
    decoding: DecodingParameters
    """How the local LLM answers."""
    patience: int = Field(3, ge=1)
    """Iterations without a proven gain that end the loop as a plateau."""
    margin: float = Field(5.0, gt=0, le=100)
    """Points above the target at which the report says how many prompts would prove it."""
    power: float = Field(0.8, ge=0.5, lt=1)
    """Chance to prove it that the report asks for."""

    @property
    def targets(self) -> dict[str, float]:
        """Score: its target."""
        return {"similarity": self.target_similarity, "precision": self.target_precision}

    @model_validator(mode="after")
    def greedy_answers_once(self) -> "EvaluationParameters":
        """K identical responses would pass for K independent ones."""
        if self.decoding.temperature == 0 and self.responses_per_prompt > 1:
            raise ValueError(
                "responses_per_prompt above 1 needs decoding.temperature above 0: "
                "greedy decoding gives the same response each time"
            )
        return self


class FairnessLimits(Parameters):
    """The most by which two shares may differ, in points of percent; of scores in points, 0–100."""

    label_gap: float = Field(10.0, ge=0, le=100)
    """A label in two groups: of the training pairs, and of the answers to the same prompts."""
    balance_gap: float = Field(25.0, ge=0, le=100)
    """A label or category in the new pairs and in the coverage set."""
    flip_rate: float = Field(10.0, ge=0, le=100)
    """Prompts of which a label changes with the group, over those in which it does within one."""
    score_gap: float = Field(5.0, ge=0, le=100)
    """ROUGE-L of answer and reference in two groups."""
    toxic_excess: float = Field(1.0, ge=0, le=100)
    """This and what follows: texts of the service LLM over those of the coverage set, and answers
    of the local LLM over the references."""
    stereotype_excess: float = Field(5.0, ge=0, le=100)
    """Texts with a group beside a word that stereotypes it."""
    refusal_excess: float = Field(2.0, ge=0, le=100)
    """Texts that decline the task."""
    hedge_excess: float = Field(5.0, ge=0, le=100)
    """Texts that hedge."""


class FairnessParameters(Parameters):
    """``params:fairness``: what the fairness audit measures, and what follows from it."""

    on_excess: Literal["warn", "balance", "stop"] = "warn"
    """Over a limit and statistically significant: ``warn`` logs and reports; ``balance`` leaves out
    pairs of the iteration, the coverage set's included, until a label is as frequent in both
    groups, and reports what remains; ``stop`` reports, and ends the loop as unfair."""
    limits: FairnessLimits = FairnessLimits.model_validate({})
    """The most by which two shares may differ."""
    sample: int = Field(60, ge=1)
    """Test prompts that are asked again in the words of other groups."""
    alpha: float = Field(0.05, gt=0, lt=0.5)
    """Family-wise error rate of a loop, for all tests of the pairs and for all of the local LLM."""
    seed: int = 1
    """Of the samples, the names and the pairs that are left out."""

    def level(self, families: int, looks: int) -> float:
        """The level of each of so many families of tests, made so often (Bonferroni)."""
        return self.alpha / families / looks


class BaselineParameters(Parameters):
    """``params:baselines``."""

    shots: int = Field(3, ge=1)
    """Coverage-train pairs shown to the untouched base model in the few-shot row."""
    max_tokens: int = Field(512, ge=1)
    """The most tokens of a service LLM's own answer."""


Quantization = Literal["f16", "q8_0", "q4_k_m"]
"""As llama.cpp names them: bits per weight about 16, 8 and 5."""


class DeploymentParameters(Parameters):
    """``params:deployment``."""

    name: str = Field("student", pattern=r"^[a-z0-9][a-z0-9_-]*$")
    """By which servers know the model; its GGUF files are named so."""
    task: str = ""
    """What it does, in a sentence or two, for its model card."""
    force: bool = False
    """Whether an iteration that did not reach its target is released all the same."""
    prompts: int = Field(50, ge=1)
    """Test prompts over whose responses adapter and merged model are compared."""
    min_agreement: dict[
        Literal["bfloat16", "float32"], Annotated[float, Field(gt=0, le=100)] | None
    ] = {"bfloat16": 99.0, "float32": 99.9}
    """Percentage of their tokens at which both must find the same one likeliest, by the type in
    which both compute; null leaves a comparison out, such as one that does not fit into memory."""
    quantizations: list[Quantization] = ["f16", "q8_0", "q4_k_m"]
    """Of the GGUF files; an empty list makes none."""

    @model_validator(mode="after")
    def compares_something(self) -> "DeploymentParameters":
        """Nothing is released unseen."""
        if not any(self.min_agreement.values()):
            raise ValueError("min_agreement needs a percentage for bfloat16, float32, or both")
        return self


Column = Literal[
    "id", "category", "system", "prompt", "response", "licence", "source", "messages", "request"
]


class Shares(Parameters):
    """How the pairs are shared out; only the ratios count."""

    train: PositiveFloat = 0.5
    """Of ``coverage_train``."""
    test: PositiveFloat = 0.25
    """Of ``coverage_test``."""
    holdout: PositiveFloat = 0.25
    """Of ``coverage_holdout``."""

    def of(self, count: int) -> dict[str, float]:
        """What each split gets of a number of pairs."""
        weights = self.model_dump()
        return {name: count * weight / sum(weights.values()) for name, weight in weights.items()}


class CoverageParameters(Parameters):
    """``params:coverage``."""

    columns: dict[Column, str | None] = {}
    """Our name of a column: theirs; null leaves a column out. What is not named here is found by
    its usual names (``pipelines/coverage/reading.py``). ``request`` and ``response`` of a log are
    those of the API, as objects or as JSON text; ``messages`` is a conversation."""
    system: Annotated[str, StringConstraints(strip_whitespace=True)] = ""
    """System message of the pairs that have none of their own: the instruction of the task, where
    the prompts do not hold it."""
    on_bad_rows: Literal["fail", "drop"] = "fail"
    """What happens where rows cannot be used: nothing is written, or they are left out."""
    turns: Literal["refuse", "last"] = "refuse"
    """A conversation of several turns cannot be used, or its last prompt and answer are taken, with
    the system message."""
    shares: Shares = Shares()
    """What each split gets."""
    max_similarity: float = Field(0.7, gt=0, le=1)
    """ROUGE-L F1 from which two prompts are near-duplicates, which stay in one split.

    So do prompts that quote each other.
    """
    seed: int = 1
    """Of the split."""
