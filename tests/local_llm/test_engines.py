"""A vLLM server answers for the local LLM."""

import json
import shutil
import sqlite3
from pathlib import Path

import pytest

from llamaduo.datasets import InferenceDataset
from llamaduo.local_llm.base_model import BaseModelSpec
from llamaduo.local_llm.chat import TEMPLATE_VARIABLES, to_messages
from llamaduo.local_llm.engines import EndpointEngine, InferenceError
from llamaduo.local_llm.inference import DecodingSettings, Response
from tests.fakes.openai_server import FakeOpenAI, Fault, completion, usage_of

BASE = "org/base-model"
DECODING = DecodingSettings(temperature=0.7, top_p=0.9, max_new_tokens=64, batch_size=8, seed=1)
CONVERSATIONS = [to_messages("", "Say red"), to_messages("Be brief.", "Say jane.roe@acme-corp.com")]


def say(body: dict) -> dict:
    """Answer with the model's name and the prompt's last word, in five tokens and the last one."""
    word = body["messages"][-1]["content"].split()[-1]
    return completion(f"{body['model']} {word}", usage=usage_of(word * 9, 6), model=body["model"])


@pytest.fixture
def server():
    with FakeOpenAI(answer=say, models=[BASE]) as running:
        yield running


def engine_at(base_url: str, folder: Path, model=BASE, **options) -> EndpointEngine:
    limits = {"attempts": 1, "timeout_s": 10}
    journal = {"filepath": str(folder / "journal.sqlite")}
    options = {"limits": limits, **options}
    return InferenceDataset(
        engine="endpoint", base_url=base_url, model=model, journal=journal, **options
    ).load()


@pytest.fixture
def engine(server, tmp_path):
    return engine_at(server.base_url, tmp_path)


@pytest.fixture
def adapter(tmp_path) -> Path:
    folder = tmp_path / "i001/adapter"
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text('{"lora_alpha": 16}')
    (folder / "adapter_model.safetensors").write_bytes(b"weights")
    return folder


def another(adapter: Path, file: str, content: bytes) -> Path:
    folder = adapter.parents[1] / "i002/adapter"
    shutil.copytree(adapter, folder)
    (folder / file).write_bytes(content)
    return folder


def texts(engine, adapter, samples=1):
    responses = engine.respond(BaseModelSpec("base"), adapter, CONVERSATIONS, samples, DECODING)
    return [[response.text for response in each] for each in responses]


def test_the_server_loads_an_adapter_once_and_answers_as_it(engine, server, adapter, monkeypatch):
    monkeypatch.chdir(adapter.parents[1])
    of_adapter = texts(engine, Path("i001/adapter"), samples=2)
    again = texts(engine, adapter, samples=2)

    assert list(server.adapters.values()) == [adapter.resolve()]
    (name,) = server.adapters
    answers = [[f"{name} red"] * 2, [f"{name} jane.roe@acme-corp.com"] * 2]
    assert of_adapter == again == answers


def test_without_an_adapter_the_base_model_answers(engine, server):
    assert texts(engine, None)[0] == [f"{BASE} red"]
    assert server.adapters == {}


def test_what_is_sent_is_the_prompt_as_it_is_and_the_whole_decoding(engine, server, adapter):
    texts(engine, adapter, samples=2)

    bodies = [each.body for each in server.served]
    # They go out together and arrive in any order.
    assert sorted(json.dumps(body["messages"]) for body in bodies) == sorted(
        json.dumps(messages) for messages in CONVERSATIONS for _ in range(2)
    )
    assert len({body.pop("seed") for body in bodies}) == 4
    (settings,) = {json.dumps({k: body[k] for k in body if k != "messages"}) for body in bodies}
    assert json.loads(settings) == {
        "model": next(iter(server.adapters)),
        "max_tokens": 64,
        "temperature": 0.7,
        "top_p": 0.9,
        "top_k": -1,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "chat_template_kwargs": TEMPLATE_VARIABLES,
    }


@pytest.mark.parametrize(
    ("content", "finish", "expected"),
    [
        ("red", "stop", Response("red", 5, True)),
        ("red, and", "length", Response("red, and", 6, False)),
        ("", "stop", Response("", 5, True)),
        ("\n", "length", Response("\n", 6, False)),
    ],
    ids=["whole", "cut off", "empty", "blank and cut off"],
)
def test_an_answer_counts_as_it_came(engine, server, content, finish, expected):
    server.answer = lambda body: completion(content, finish, usage_of("prompt", 6))

    first, again = (
        engine.respond(BaseModelSpec("base"), None, CONVERSATIONS, 1, DECODING) for _ in range(2)
    )

    assert first == again == [[expected]] * 2
    assert len(server.served) == 2


@pytest.mark.parametrize(
    ("file", "content"),
    [("adapter_model.safetensors", b"others"), ("adapter_config.json", b'{"lora_alpha": 32}')],
)
def test_an_adapter_never_gets_the_answers_of_another(engine, server, adapter, file, content):
    first = texts(engine, adapter)

    second = texts(engine, another(adapter, file, content))

    assert len(server.adapters) == 2
    assert not set(map(tuple, first)) & set(map(tuple, second))


def test_an_adapter_on_another_base_model_is_asked_anew(engine, server, adapter, tmp_path):
    server.models.append("quantised")
    first = texts(engine, adapter)

    second = texts(engine_at(server.base_url, tmp_path, model="quantised"), adapter)

    assert not set(map(tuple, first)) & set(map(tuple, second))


def test_a_response_that_did_not_come_ends_the_node_and_the_others_are_kept(
    engine, server, adapter
):
    server.script = lambda body: (
        Fault(500, '{"error": {"message": "out of memory"}}') if "red" in str(body) else None
    )
    with pytest.raises(
        InferenceError, match=r"1 of 2 responses .* gave up, HTTP 500: out of memory .* go on"
    ):
        texts(engine, adapter)

    server.script = lambda body: None
    asked = len(server.served)

    assert len(texts(engine, adapter)) == 2
    assert len(server.served) == asked + 1


def test_nobody_pays_for_the_local_llm(engine, adapter, tmp_path):
    texts(engine, adapter)

    connection = sqlite3.connect(tmp_path / "journal.sqlite")
    rows = connection.execute("SELECT DISTINCT account, purpose, usd FROM attempts").fetchall()
    connection.close()
    assert rows == [("", "asking the local LLM", 0.0)]


def test_an_adapter_that_the_server_does_not_see_is_named(engine, server, adapter):
    server.sees = lambda file: False

    with pytest.raises(
        InferenceError, match=rf"did not load the adapter {adapter} \(HTTP 404: .* this very path"
    ):
        texts(engine, adapter)


def test_a_server_that_is_ready_passes_the_check(engine, server):
    assert engine.check() is None
    assert server.adapters == {}
    assert server.served == []


def test_a_check_names_the_models_that_are_there(server, tmp_path):
    sentence = engine_at(server.base_url, tmp_path, model="typo").check()

    assert f"serves {BASE}, and no typo" in sentence


def test_a_check_names_the_flags_of_a_server_that_loads_no_adapters(engine, server):
    server.loads_adapters = False

    assert "VLLM_ALLOW_RUNTIME_LORA_UPDATING=True" in engine.check()


def test_a_server_that_says_ok_to_what_it_does_not_know_is_not_taken_for_one(
    engine, server, adapter
):
    server.loads_adapters = False
    server.unknown = (200, '{"error": "Unexpected endpoint or method."}')  # as LM Studio

    assert "loads no adapters at run time (HTTP 200" in engine.check()
    with pytest.raises(InferenceError, match=r"did not load the adapter .*Unexpected endpoint"):
        texts(engine, adapter)


def test_a_check_tells_a_server_that_is_not_there(tmp_path):
    sentence = engine_at("http://127.0.0.1:1/v1", tmp_path).check()

    assert sentence.startswith("http://127.0.0.1:1/v1/models: no connection")
    assert "is the server up" in sentence


def test_a_check_tells_a_server_of_another_kind_and_never_the_key(tmp_path):
    with FakeOpenAI() as server:
        engine = engine_at(server.base_url, tmp_path, credentials={"api_key": "sk-secret-42"})
        sentence = engine.check()

    assert "gave no list of models (HTTP 404" in sentence
    assert server.keys == {"Bearer sk-secret-42"}
    assert "sk-secret-42" not in f"{sentence} {engine!r} {engine.describe()}"
