"""A Modelfile, by which Ollama takes a GGUF file over.

Its template is one of Go's, which cannot be made of any chat template: the pieces around messages
are found by rendering marks, and stand for it where they make the same prompts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from os.path import commonprefix
from pathlib import Path
from typing import TYPE_CHECKING

from llamaduo.local_llm.base_model import (
    BaseModelSpec,
    load_generation_config,
    load_tokenizer,
    stop_token_ids,
)
from llamaduo.local_llm.inference import DecodingSettings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from llamaduo.local_llm.chat import Message

SYSTEM, USER, ANSWER, NEXT = "SYSTEMMARK", "USERMARK", "ANSWERMARK", "NEXTMARK"
CONVERSATION = [
    {"role": "system", "content": SYSTEM},
    {"role": "user", "content": USER},
    {"role": "assistant", "content": ANSWER},
    {"role": "user", "content": NEXT},
]
PREFERRED = "q8_0"
"""The quantization that hardly costs anything, where it is there."""


@dataclass(frozen=True)
class Pieces:
    """What a chat template writes around messages, without the token that begins a document.

    That one Ollama adds itself.
    """

    no_system: str
    """In place of a system message."""
    system: tuple[str, str] | None
    """Before and after it; None where the template refuses one."""
    user: tuple[str, str]
    earlier_answer: tuple[str, str]
    answer: str
    """Before the answer that comes now; an earlier one may be shown without its reasoning."""

    def render(self, messages: list[Message]) -> str:
        """A conversation that the model answers next."""
        around = {"system": self.system, "user": self.user, "assistant": self.earlier_answer}
        text = "" if messages[0]["role"] == "system" else self.no_system
        for message in messages:
            before, after = around[message["role"]] or ("", "")
            text += before + message["content"] + after
        return text + self.answer

    def as_go_template(self) -> str:
        """For Ollama (https://github.com/ollama/ollama/blob/main/docs/template.md)."""
        start = self.no_system
        if self.system:
            system = _around("{{ .System }}", self.system)
            start = f"{{{{ if .System }}}}{system}{{{{ else }}}}{self.no_system}{{{{ end }}}}"
        user = _around("{{ .Content }}", self.user)
        answer = _around("{{ .Content }}", self.earlier_answer)
        return (
            f'{start}{{{{ range .Messages }}}}{{{{ if eq .Role "user" }}}}{user}'
            f'{{{{ else if eq .Role "assistant" }}}}{answer}{{{{ end }}}}{{{{ end }}}}{self.answer}'
        )


def write_modelfile(
    name: str, model: Path, files: Sequence[Path], decoding: DecodingSettings
) -> str:
    """Ollama's Modelfile for one of the GGUF files, which lies beside it.

    Args:
        model: The folder of which they are.
        decoding: How it was evaluated.
    """
    spec = BaseModelSpec(str(model))
    tokenizer = load_tokenizer(spec)
    preferred = [file for file in files if file.stem.endswith(PREFERRED)] or files
    lines = [
        f"# Written by llamaduo, and not tried with Ollama: ollama create {name} -f Modelfile",
        *[f"FROM ./{file.name}" for file in preferred[:1]],
    ]
    if pieces := find_pieces(tokenizer):
        lines.append(f'TEMPLATE """{pieces.as_go_template()}"""')
    else:
        lines.append("# No TEMPLATE: Ollama has to know the chat template inside the GGUF file.")
    stops = stop_token_ids(load_generation_config(spec), tokenizer)
    values = {
        "temperature": decoding.temperature,
        "top_p": decoding.top_p,
        "top_k": 0,
        "min_p": 0,
        "repeat_penalty": 1,
        "num_predict": decoding.max_new_tokens,
    }
    lines += [f'PARAMETER stop "{each}"' for each in tokenizer.convert_ids_to_tokens(stops)]
    lines += [f"PARAMETER {name} {value:g}" for name, value in values.items()]
    return "\n".join(lines) + "\n"


def find_pieces(tokenizer: PreTrainedTokenizerBase) -> Pieces | None:
    """What the chat template writes around messages; None where it does more than that."""
    pieces = _guess(tokenizer)
    _, *turns = CONVERSATION
    conversations = [turns, turns[:1]]
    if pieces.system:
        conversations += [CONVERSATION, CONVERSATION[:2]]
    made = [pieces.render(each) for each in conversations]
    if made != [_render(tokenizer, each) for each in conversations]:
        return None
    return pieces if "{{" not in "".join(made) and '"""' not in "".join(made) else None


def _guess(tokenizer: PreTrainedTokenizerBase) -> Pieces:
    from jinja2 import TemplateError

    start, rest = _split(_render(tokenizer, CONVERSATION[1:]), USER)
    to_answer, rest = _split(rest, ANSWER)
    to_user, last = _split(rest, NEXT)
    after_user = commonprefix([to_answer, last])  # noqa: RUF071  (of characters)
    before_system: str | None
    after_system: str | None
    try:
        before_system, rest = _split(_render(tokenizer, CONVERSATION), SYSTEM)
        after_system, _ = _split(rest, USER)
    except TemplateError:
        before_system = after_system = None
    before_user = _common_end([each for each in (start, to_user, after_system) if each is not None])
    return Pieces(
        no_system=start.removesuffix(before_user),
        system=None
        if before_system is None or after_system is None
        else (before_system, after_system.removesuffix(before_user)),
        user=(before_user, after_user),
        earlier_answer=(
            to_answer.removeprefix(after_user),
            to_user.removesuffix(before_user),
        ),
        answer=last.removeprefix(after_user),
    )


def _render(tokenizer: PreTrainedTokenizerBase, messages: list[Message]) -> str:
    made = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return str(made).removeprefix(str(tokenizer.bos_token or ""))


def _split(text: str, mark: str) -> tuple[str, str]:
    before, _, after = text.partition(mark)
    return before, after


def _around(value: str, pieces: tuple[str, str]) -> str:
    return pieces[0] + value + pieces[1]


def _common_end(texts: list[str]) -> str:
    return commonprefix([text[::-1] for text in texts])[::-1]  # noqa: RUF071
