"""A Modelfile, by which Ollama takes a GGUF file over.

Its template is one of Go's, which cannot be made of any chat template: the pieces around messages
are found by rendering marks, and stand for it where they make the same prompts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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
PREFERRED = "q8_0"
"""The quantization that hardly costs anything, where it is there."""


@dataclass(frozen=True)
class Pieces:
    """What a chat template writes around messages."""

    no_system: str
    """In place of a system message."""
    before_system: str
    after_system: str
    before_user: str
    before_answer: str
    """From the end of a user's message to the beginning of the answer."""
    after_answer: str

    def render(self, messages: list[Message]) -> str:
        """A conversation that the model answers next."""
        has_system = messages[0]["role"] == "system"
        text = "" if has_system else self.no_system
        around = {
            "system": (self.before_system, self.after_system),
            "user": (self.before_user, self.before_answer),
            "assistant": ("", self.after_answer),
        }
        for message in messages:
            before, after = around[message["role"]]
            text += before + message["content"] + after
        return text

    def as_go_template(self) -> str:
        """For Ollama; its variables are those of github.com/ollama/ollama/docs/template.md."""
        system = f"{self.before_system}{{{{ .System }}}}{self.after_system}"
        return (
            f"{{{{ if .System }}}}{system}{{{{ else }}}}{self.no_system}{{{{ end }}}}"
            '{{ range .Messages }}{{ if eq .Role "user" }}'
            f"{self.before_user}{{{{ .Content }}}}{self.before_answer}"
            '{{ else if eq .Role "assistant" }}'
            f"{{{{ .Content }}}}{self.after_answer}{{{{ end }}}}{{{{ end }}}}"
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
    from jinja2 import TemplateError

    system = {"role": "system", "content": SYSTEM}
    user, answer = {"role": "user", "content": USER}, {"role": "assistant", "content": ANSWER}
    following = {"role": "user", "content": NEXT}
    try:
        # Of two turns, so that an answer's end is that in the middle of a conversation.
        bare = _render(tokenizer, [user, answer, following])
        instructed = _render(tokenizer, [system, user, answer, following])
    except TemplateError:  # it knows no system role, say
        return None
    start, middle = bare.split(USER)[0], bare.split(ANSWER)[-1].split(NEXT)[0]
    last = bare.split(NEXT)[-1]
    before_system, _, rest = instructed.partition(SYSTEM)
    after_system = rest.split(USER)[0]
    before_user = _common_end(start, middle, after_system)
    pieces = Pieces(
        no_system=start.removesuffix(before_user),
        before_system=before_system,
        after_system=after_system.removesuffix(before_user),
        before_user=before_user,
        before_answer=last,
        after_answer=middle.removesuffix(before_user),
    )
    made = [pieces.render(each) for each in ([user, answer, following], [system, user])]
    by_template = [bare, _render(tokenizer, [system, user])]
    return pieces if made == by_template and "{{" not in "".join(made) else None


def _render(tokenizer: PreTrainedTokenizerBase, messages: list[Message]) -> str:
    return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))


def _common_end(*texts: str) -> str:
    shortest = min(texts, key=len)
    for start in range(len(shortest)):
        if all(text.endswith(shortest[start:]) for text in texts):
            return shortest[start:]
    return ""
