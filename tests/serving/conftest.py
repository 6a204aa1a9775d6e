"""A release of the random model, and servers over it on free ports of loopback."""

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
import openai
import pytest
import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from llamaduo.local_llm.base_model import BaseModelSpec, load_model, load_tokenizer
from llamaduo.local_llm.chat import encode_prompt
from llamaduo.local_llm.gguf import convert
from llamaduo.local_llm.inference import DecodingSettings, generate
from llamaduo.local_llm.release import Release, write_manifest
from llamaduo.serving.app import build_app
from llamaduo.serving.engines import Engine
from llamaduo.serving.limits import Limits
from llamaduo.serving.loading import load_engine, load_student
from llamaduo.serving.server import Server, bound
from llamaduo.serving.student import Student

TOKENS = 12
"""Of an answer, where a request does not say."""
CONTEXT = 512
WINDOW = 2**17
"""Room for requests that take a minute."""


def make_release(model: Path, folder: Path, *quantizations: str) -> Release:
    """A release of a model folder, decoded greedily."""
    shutil.copytree(model, folder / "model")
    config = folder / "model/config.json"
    described = json.loads(config.read_text(encoding="utf-8"))
    config.write_text(json.dumps({**described, "max_position_embeddings": WINDOW}))
    ends = {"eos_token_id": 2, "pad_token_id": 2}
    GenerationConfig(do_sample=False, max_new_tokens=TOKENS, **ends).save_pretrained(
        folder / "model"
    )
    (folder / "gguf").mkdir()
    for quantization in quantizations:
        target = folder / f"gguf/student-{quantization}.gguf"
        convert(folder / "model", target, quantization, "student")
    write_manifest(folder, {"name": "student"})
    return Release.open(folder)


@dataclass
class Served:
    """A server that runs in a thread of this process."""

    base_url: str
    student: Student
    engine: Engine
    api_key: str
    clients: ExitStack = field(repr=False)

    def client(self, **options) -> openai.OpenAI:
        """The official client; one for all tests would hide what a new connection does."""
        given = {"api_key": self.api_key or "any", "max_retries": 0, "timeout": 30, **options}
        return self.clients.enter_context(openai.OpenAI(base_url=self.base_url, **given))

    def health(self) -> tuple[int, dict[str, str]]:
        """Status and body, asked for without a key."""
        response = httpx2.get(self.base_url.removesuffix("/v1") + "/health")
        return response.status_code, response.json()

    def ask(self, text: str, **options):
        """One completion, as the official client reads it."""
        messages = [{"role": "user", "content": text}]
        return self.client().chat.completions.create(model="any", messages=messages, **options)

    def text(self, text: str, **options) -> str:
        """Of an answer."""
        return self.ask(text, **options).choices[0].message.content


def post(served: Served, content: bytes, path: str = "/chat/completions", **headers: str):
    """Send whatever the official client would not."""
    return httpx2.post(served.base_url + path, content=content, headers=headers, timeout=30)


def json_schema(schema: object) -> dict[str, object]:
    """A ``response_format``."""
    return {"type": "json_schema", "json_schema": {"name": "it", "schema": schema}}


@contextmanager
def serving(
    release: Release,
    part: str = "merged",
    api_key: str = "",
    engine: Engine | None = None,
    dtype: torch.dtype | None = torch.float32,
    **limits,
) -> Iterator[Served]:
    """Serve a part of a release; in float32 a batch does not matter to a merged model."""
    allowed = Limits(**{"slots": 4, "context": CONTEXT, "max_tokens": 400, **limits})
    student = load_student(release, part)
    engine = engine or load_engine(release, part, student, allowed.slots, allowed.context, dtype)
    held, started = bound("127.0.0.1", 0), threading.Event()
    server = Server(build_app(student, engine, allowed, api_key), engine, started.set)
    thread = threading.Thread(target=server.run, args=([held],))
    thread.start()
    try:
        assert started.wait(30)
        with ExitStack() as clients:
            base_url = f"http://127.0.0.1:{held.getsockname()[1]}/v1"
            yield Served(base_url, student, engine, api_key, clients)
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="session")
def release(random_model: BaseModelSpec, tmp_path_factory: pytest.TempPathFactory) -> Release:
    folder = tmp_path_factory.mktemp("release")
    return make_release(Path(random_model.name_or_path), folder, "f16")


@pytest.fixture(params=["merged", "f16"])
def part(request: pytest.FixtureRequest) -> str:
    """Each part of the release, where a test has its own server."""
    return request.param


@pytest.fixture(scope="module", params=["merged", "f16"])
def served(request: pytest.FixtureRequest, release: Release) -> Iterator[Served]:
    """Each engine in its turn."""
    with serving(release, request.param) as server:
        yield server


@pytest.fixture(scope="module")
def merged(release: Release) -> Iterator[Served]:
    with serving(release) as server:
        yield server


@pytest.fixture(scope="module")
def gguf(release: Release) -> Iterator[Served]:
    with serving(release, "f16") as server:
        yield server


@pytest.fixture(scope="session")
def plain(release: Release) -> tuple[PreTrainedTokenizerBase, PreTrainedModel]:
    """The released model as evaluation has it, in float32."""
    spec = BaseModelSpec(str(release.model))
    return load_tokenizer(spec), load_model(spec, torch.float32)


@pytest.fixture(scope="session")
def answer_of(
    plain: tuple[PreTrainedTokenizerBase, PreTrainedModel],
) -> Callable[[list[dict[str, str]]], str]:
    """What plain generation answers to messages, each alone."""
    tokenizer, model = plain
    decoding = DecodingSettings(0.0, 1.0, max_new_tokens=TOKENS, batch_size=1, seed=1)

    def answer(messages: list[dict[str, str]]) -> str:
        prompt = encode_prompt(tokenizer, messages)
        return generate(model, tokenizer, [prompt], 1, decoding)[0][0].text

    return answer
