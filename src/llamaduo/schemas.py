"""One pandera model per table that the catalog holds.

All in one place, and longer than other files for it: each table takes its columns over from those
before it, and the catalog names them by this module.

Every table may be empty; then its file has no columns, and the schema gives them back.
"""

from math import isnan, nan

import pandas as pd
import pandera.pandas as pa
from pandera.typing import Series

from llamaduo.service_llm.privacy import quote

PAIR = ["system", "prompt", "response"]
"""The columns of a pair itself."""


def seeds_of(pairs: pd.DataFrame) -> pd.Series:
    """What is independent of each other: a seed with all that was written from it."""
    return pairs["seed_id"].where(pairs["seed_id"] != "", pairs["id"])


class Table(pa.DataFrameModel):
    """The base of all tables: types are coerced, extra columns are kept."""

    class Config:
        """pandera's switches."""

        coerce = True

    @pa.dataframe_parser
    @classmethod
    def columns_of_an_empty_file(cls, frame: pd.DataFrame) -> pd.DataFrame:
        """Give an empty file the columns of its table."""
        if len(frame.columns):
            return frame
        return frame.reindex(columns=list(cls.to_schema().columns))

    @pa.dataframe_parser
    @classmethod
    def text_is_text(cls, frame: pd.DataFrame) -> pd.DataFrame:
        """Refuse what coercion would spell as Python does: ``True`` for true, 1.5 for 1.50."""
        text = [
            name for name, c in cls.to_schema().columns.items() if str(c.dtype).startswith("str")
        ]
        for column in frame.columns.intersection(text):
            foreign = frame[column].map(_is_no_text)
            if foreign.any():
                row = int(foreign.to_numpy().argmax())
                raise ValueError(
                    f"row {row + 1}: column {column} holds {quote(frame[column].iloc[row], 80)}, "
                    "expected text; write it as a string (of a CSV file, read all columns as text: "
                    "load_args: {dtype: str}; conversations of several turns are not supported)"
                )
        return frame


def _is_no_text(value: object) -> bool:
    return isinstance(value, (dict, list, bool)) or (isinstance(value, float) and not isnan(value))


class CoveragePairs(Table):
    """The user's pairs: a prompt and the response that a service LLM gave well.

    Optional columns: ``category`` (slices of the report, strata of the seeds), ``system`` (system
    message), ``licence`` and ``source``.
    """

    id: Series[str] = pa.Field(unique=True)
    prompt: Series[str] = pa.Field(str_matches=r"\s*\S")
    response: Series[str] = pa.Field(str_matches=r"\s*\S")

    @pa.dataframe_check(name="has_rows")
    @classmethod
    def has_rows(cls, frame: pd.DataFrame) -> bool:
        """A coverage set without pairs is a mistake."""
        return len(frame) > 0

    @pa.dataframe_parser
    @classmethod
    def optional_columns(cls, frame: pd.DataFrame) -> pd.DataFrame:
        """Give the optional columns to a file that lacks them."""
        return frame.assign(
            **{
                name: frame[name].fillna("") if name in frame.columns else ""
                for name in ("category", "system", "licence", "source")
            }
        )


class RawPairs(Table):
    """The rows of the user's file as they came, readable or not."""

    file: Series[str]
    line: Series[int] = pa.Field(ge=1)
    """Where the row begins, from 1; of Parquet files and datasets the number of the row."""
    row: Series[object] = pa.Field(nullable=True)
    """Values by column; None where the line cannot be read."""
    problem: Series[str]
    """Why it cannot be read, empty where it can."""


class CheckedRows(Table):
    """Every row of the user's file as a pair; a field that cannot be used is empty."""

    file: Series[str]
    line: Series[int]
    id: Series[str]
    """``row-<n>``, counted over all files, where the file has none."""
    category: Series[str]
    system: Series[str]
    prompt: Series[str]
    response: Series[str]
    licence: Series[str]
    source: Series[str]
    problems: Series[object]
    """Of each problem the field and the reason; none for a pair that can be used."""


class SplitPairs(CoveragePairs):
    """The user's pairs, each in one of the three splits."""

    group: Series[int] = pa.Field(ge=1)
    """Near-duplicates have the same."""
    split: Series[str] = pa.Field(isin=["train", "test", "holdout"])


class Pairs(Table):
    """Pairs that have all their columns; may be empty, as the holdout is until it is opened."""

    id: Series[str] = pa.Field(unique=True)
    category: Series[str]
    licence: Series[str]
    source: Series[str]
    """Where the user had a coverage pair or a ready pair from."""
    system: Series[str]
    prompt: Series[str]
    response: Series[str]


class ReadyPairs(Table):
    """Pairs that are at hand instead of a service LLM's answers; may be empty.

    Optional columns: those of a coverage pair.
    """

    prompt: Series[str]
    response: Series[str]


class Seeds(Table):
    """Coverage-train pairs to show to the service LLM, one request a row."""

    request: Series[int] = pa.Field(unique=True)
    """Number of the request over the whole loop, from 1."""
    strategy_name: Series[str] = pa.Field(alias="strategy")
    """Name of the prompt text."""
    seed_id: Series[str]
    turn: Series[int] = pa.Field(ge=0)
    """Of the walk through the coverage set, from 1; 0 for a seed that was aimed at."""
    system: Series[str]
    prompt: Series[str]
    response: Series[str]
    pairs: Series[int] = pa.Field(ge=1)
    """Pairs that the request asks for."""


class Replies(Table):
    """What a service LLM answered, unparsed (``service_llm.answers.reply_columns``)."""

    text: Series[str] = pa.Field(nullable=True)
    """None where the request failed."""
    failure: Series[str] = pa.Field(nullable=True)
    """The name of what went wrong (``service_llm.failures.Failure``), None for an answer."""
    detail: Series[str]
    """What the endpoint or the budget says of it."""
    model: Series[str] = pa.Field(nullable=True)
    """The model id that the endpoint reported."""
    prompt_tokens: Series[int] = pa.Field(ge=0)
    completion_tokens: Series[int] = pa.Field(ge=0)
    answered_at: Series[float] = pa.Field(nullable=True)
    """Seconds since the epoch. No later table has a time."""
    replaced: Series[object]
    """The kind of each personal detail that a surrogate stood for in the request."""


class SynthesisReplies(Replies):
    """What the service LLM answered, unparsed."""

    request: Series[int]
    attempt: Series[int] = pa.Field(isin=[1, 2])
    """2 asks for the pairs that the first answer lacked."""
    strategy_name: Series[str] = pa.Field(alias="strategy")
    seed_id: Series[str]
    prompt_version: Series[str]
    """The strategy and a digest of its prompt text."""
    teacher: Series[str]
    """The model that was asked."""


class TracedPairs(Pairs):
    """Pairs with where they came from; what does not hold for one is empty."""

    origin: Series[str] = pa.Field(isin=["coverage", "synthetic", "ready"])
    seed_id: Series[str]
    """The coverage pair that was shown; a ready pair's own id."""
    teacher: Series[str]
    model: Series[str] = pa.Field(nullable=True)
    """The model id that the teacher's endpoint reported; None where it did not."""
    prompt_version: Series[str]


class NewPairs(TracedPairs):
    """Pairs that may be trained on; category and system are those of the seed."""

    request: Series[int]
    """0 for a ready pair, and for a coverage pair."""


class ParsedPairs(NewPairs):
    """Pairs as read from the replies; a reply that cannot be read is one row with its reason."""

    seed_prompt: Series[str]
    unreadable: Series[str]
    """Why there is no pair; empty for a pair."""


class ScreenedPairs(NewPairs):
    """Every parsed row, kept or with the reason for which it was dropped.

    Surrogates stand for personal details, as they do in what was sent.
    """

    dropped: Series[str]
    """Empty for a kept pair."""
    filter_version: Series[str]
    """Of the checks and their parameters."""
    replaced: Series[object]
    """The kind of each personal detail that was replaced in the row."""


class PairJudgeReplies(Replies):
    """What the judge answered about each pair that passed the checks, unparsed."""

    id: Series[str] = pa.Field(unique=True)


class SelectedPairs(ScreenedPairs):
    """The same rows after the judge's choice."""

    score: Series[float] = pa.Field(nullable=True, ge=0, le=100)
    """Null where the judge was not asked or gave none."""


class Yields(Table):
    """Over the loop so far: how many of the pairs that were asked for passed all checks."""

    what: Series[str] = pa.Field(isin=["seed", "strategy"])
    name: Series[str]
    """Id of the coverage pair, or name of the strategy."""
    asked: Series[int] = pa.Field(ge=1)
    kept: Series[int] = pa.Field(ge=0)


class BalancedPairs(ScreenedPairs):
    """What an iteration may add: new pairs and, in the first one, the coverage pairs."""


class ScreenedCoverage(Pairs):
    """Coverage-train pairs, usable or with the reason for which they are left out.

    Surrogates stand for personal details: no later step of the synthesis sees these.
    """

    dropped: Series[str]
    filter_version: Series[str]
    replaced: Series[object]
    """The kind of each personal detail that was replaced in the row."""


class TrainingSet(TracedPairs):
    """All pairs that the local LLM may be trained on in an iteration."""

    iteration: Series[int] = pa.Field(ge=1)
    """The iteration that added the pair."""
    filter_version: Series[str]


class DuePairs(TrainingSet):
    """Pairs of the training set that an iteration trains on, and those that validate it."""

    validation: Series[bool]
    """Never trained on."""


class PreferencePrompts(Pairs):
    """Coverage-train prompts that the local LLM answers to learn preferences; may be empty."""

    seed_id: Series[str] = pa.Field(unique=True)
    """The coverage pair."""
    validation: Series[bool]
    """SFT never trains on it."""


class PreferencePairs(Table):
    """Two responses to a prompt, of which one is preferred; may be empty."""

    id: Series[str] = pa.Field(unique=True)
    """Of the preference prompt."""
    seed_id: Series[str]
    system: Series[str]
    prompt: Series[str]
    chosen: Series[str]
    rejected: Series[str]
    """A response of the adapter that the training starts from."""
    rejected_finished: Series[bool]
    chosen_score: Series[float] = pa.Field(ge=0, le=100)
    """100 for a reference."""
    rejected_score: Series[float] = pa.Field(ge=0, le=100)
    validation: Series[bool]
    """Never trained on."""


class TrainingLog(Table):
    """A training, step by step."""

    step: Series[int] = pa.Field(ge=1)
    epoch: Series[float]
    """Passes over the pairs so far."""
    loss: Series[float]
    """Mean cross-entropy of the response tokens, in nats; by preference DPO's loss."""
    validation_loss: Series[float] = pa.Field(nullable=True)
    """The same on pairs that are never trained on; null where it was not looked at."""
    learning_rate: Series[float]
    grad_norm: Series[float]
    """Before it was clipped."""
    seconds: Series[float]
    """Since the first step began, without the time between an interruption and its resume."""
    tokens: Series[int]
    """Read so far, padding left out."""
    tokens_per_s: Series[float] = pa.Field(nullable=True)
    """Of this step, looks at the validation pairs included; null for the first one, and for one too
    short to be timed."""
    reward_margin: Series[float] = pa.Field(nullable=True)
    """By preference: the mean of beta times the log ratio of now and the start, of the chosen less
    that of the rejected. This and what follows is null for SFT."""
    reward_accuracy: Series[float] = pa.Field(nullable=True, ge=0, le=1)
    """Share of the pairs with a margin above 0."""
    kl: Series[float] = pa.Field(nullable=True)
    """KL(start ‖ now) of a response in nats, estimated on the rejected ones, which the start has
    drawn; high, since they are its worst, from which it is led away."""


class Responses(Table):
    """K responses to each prompt, of the local LLM or of a baseline."""

    id: Series[str]
    """Of the test pair."""
    sample: Series[int] = pa.Field(ge=1)
    """1 … K."""
    response: Series[str]
    tokens: Series[int] = pa.Field(ge=0)
    finished: Series[bool]
    """False where ``max_new_tokens`` cut the response off."""


class FormatResponses(Responses):
    """Responses of the released model in each of its formats."""

    format: Series[str]
    """``merged``, or the quantization of a GGUF file."""


class JudgeReplies(Replies):
    """What the judge answered about each response, unparsed."""

    id: Series[str]
    sample: Series[int]
    repeat: Series[int] = pa.Field(ge=1)
    """1 … M."""
    judge: Series[str]
    """The model that was asked."""
    prompt_version: Series[str]
    """Digest of the judge prompt."""


class Judgements(Table):
    """One score of one response; null where the judge's answer cannot be read."""

    id: Series[str]
    sample: Series[int]
    repeat: Series[int]
    judge: Series[str]
    similarity: Series[float] = pa.Field(nullable=True, ge=0, le=100)
    precision: Series[float] = pa.Field(nullable=True, ge=0, le=100)
    text: Series[str] = pa.Field(nullable=True)
    failure: Series[str] = pa.Field(nullable=True)
    """Of the request; None where the judge answered."""


class Scores(Table):
    """Per test prompt: means over its readable judgements, null where there is none."""

    id: Series[str] = pa.Field(unique=True)
    category: Series[str]
    similarity: Series[float] = pa.Field(nullable=True, ge=0, le=100)
    precision: Series[float] = pa.Field(nullable=True, ge=0, le=100)
    full_marks: Series[float] = pa.Field(nullable=True, ge=0, le=1)
    """Share of the judgements with precision 100."""
    judged: Series[int] = pa.Field(ge=0)
    expected: Series[int] = pa.Field(ge=1)
    """K · M, times the judges."""
    cut_off: Series[int] = pa.Field(ge=0)
    """Responses that ``max_new_tokens`` cut off."""
    over_budget: Series[int] = pa.Field(ge=0)
    """Judgements that were not asked for, since the loop's budget was spent."""


class HumanScores(Table):
    """Responses that people have scored on the judge's scale; may be empty.

    Optional columns: ``system``, and one of the two scores.
    """

    system: Series[str] = pa.Field(default="")
    prompt: Series[str]
    reference: Series[str]
    response: Series[str]
    similarity: Series[float] = pa.Field(nullable=True, ge=0, le=100, default=nan)
    precision: Series[float] = pa.Field(nullable=True, ge=0, le=100, default=nan)

    class Config:
        """pandera's switches."""

        add_missing_columns = True

    @pa.dataframe_check(name="has_score")
    @classmethod
    def has_score(cls, frame: pd.DataFrame) -> pd.Series:
        """A row without a score measures nothing."""
        return frame[["similarity", "precision"]].notna().any(axis=1)


class AuditCases(Table):
    """Answers by which the judge is audited."""

    id: Series[str] = pa.Field(unique=True)
    kind: Series[str]
    """``empty``, ``flattering``, ``commanding``, ``reference``, ``other_reference``, ``anchor``,
    ``human``."""
    system: Series[str]
    prompt: Series[str]
    reference: Series[str]
    response: Series[str]
    human_similarity: Series[float] = pa.Field(nullable=True)
    """What people gave; null where they did not score it."""
    human_precision: Series[float] = pa.Field(nullable=True)


class Counterfactuals(Table):
    """Test prompts in the words of other groups; may be empty."""

    id: Series[str] = pa.Field(unique=True)
    prompt_id: Series[str]
    """Of the test pair."""
    variant: Series[str]
    """``base`` with a name, ``same group`` with another one of that group, a dimension with one of
    another group of it; ``as written``, and the name of a rewriting."""
    traits: Series[object]
    """Dimension: group of the name; empty without one."""
    name: Series[str]
    system: Series[str]
    prompt: Series[str]
    reference: Series[str]


class WeakSpots(Table):
    """Coverage-train pairs by how near they are to what was judged weak; holds no test text."""

    seed_id: Series[str] = pa.Field(unique=True)
    category: Series[str]
    category_weight: Series[float] = pa.Field(ge=0, le=1)
    """Share of the points that the test prompts of this category have missed."""
    weight: Series[float] = pa.Field(ge=0, le=1)
    """Share of all missed points that lies nearest to this pair; the sum is 1."""


class WorstResponses(Table):
    """Responses with the lowest scores, beside their references."""

    id: Series[str]
    category: Series[str]
    sample: Series[int]
    prompt: Series[str]
    reference: Series[str]
    response: Series[str]
    finished: Series[bool]
    similarity: Series[float] = pa.Field(nullable=True)
    """Mean over the judgements of this response; null where none could be read."""
    precision: Series[float] = pa.Field(nullable=True)
