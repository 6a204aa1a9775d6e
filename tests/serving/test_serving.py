"""An application that changed by its base URL alone, asked by the official client."""

import asyncio
import json
import shutil

import openai
import pytest
import torch
from transformers import GenerationConfig

from llamaduo.local_llm.chat import encode_prompt
from llamaduo.local_llm.release import Release, write_manifest
from tests.serving.conftest import CONTEXT, serving

ENDLESS = {"max_tokens": 60_000, "temperature": 0}
"""Of a request that takes a minute and more, unless something ends it."""
ROOMY = {"context": 61_000, "max_tokens": 60_000}


def user(text):
    return {"role": "user", "content": text}


def alike(served, answer, expected):
    """A GGUF file computes in half precision, in which some later token may be another."""
    length = 8 if served.engine.enforces_schemas else len(expected)
    return answer[:length] == expected[:length]


def streamed(events):
    return "".join(event.choices[0].delta.content or "" for event in events if event.choices)


def test_a_conversation_goes_on_with_the_answers_that_came(served, answer_of):
    create = served.client().chat.completions.create
    messages, expected = [{"role": "system", "content": "Answer in one word."}], []
    for text in ("Which river?", "And which mountain?", "Häuser in 北京 🙂?"):
        messages.append(user(text))
        spoken = [{name: each[name] for name in ("role", "content")} for each in messages]
        expected.append(answer_of(spoken))
        completion = create(model="gpt-4o", messages=messages)
        messages.append(completion.choices[0].message.model_dump())

    answers = [message["content"] for message in messages[2::2]]
    assert all(alike(served, *pair) for pair in zip(answers, expected, strict=True))
    assert completion.model.startswith("student")
    assert completion.choices[0].finish_reason == "length"
    assert completion.usage.completion_tokens == 12
    assert completion.usage.total_tokens == completion.usage.prompt_tokens + 12


def test_a_developer_s_message_and_text_parts_are_read_as_text(served, answer_of):
    parts = [{"type": "text", "text": "One "}, {"type": "text", "text": "two"}]
    messages = [{"role": "developer", "content": "Count."}, {"role": "user", "content": parts}]

    completion = served.client().chat.completions.create(model="any", messages=messages)

    system = {"role": "system", "content": "Count."}
    answer = completion.choices[0].message.content
    assert alike(served, answer, answer_of([system, user("One two")]))


def test_a_stream_has_the_text_of_the_whole_answer_and_its_usage(served):
    for text in ("The harbour", "Ein Garten für alle", "数を数える"):
        whole = served.ask(text, max_tokens=60)
        events = list(
            served.ask(text, max_tokens=60, stream=True, stream_options={"include_usage": True})
        )

        assert streamed(events) == whole.choices[0].message.content
        assert events[0].choices[0].delta.role == "assistant"
        assert [event.choices[0].finish_reason for event in events[:-1]][-1] == "length"
        assert events[-1].choices == []
        assert events[-1].usage == whole.usage
        assert len({event.id for event in events}) == 1


def test_a_stream_ends_with_done(served):
    with served.client().chat.completions.with_streaming_response.create(
        model="any", messages=[user("Hello")], stream=True
    ) as response:
        lines = [line for line in response.iter_lines() if line]

    assert response.headers["content-type"].startswith("text/event-stream")
    assert lines[-1] == "data: [DONE]"
    assert all(json.loads(line.removeprefix("data: ")) for line in lines[:-1])


def test_many_clients_at_once_each_get_the_answer_to_their_own_prompt(served, answer_of):
    texts = [f"Tell me about number {number}{' again' * (number % 7)}." for number in range(24)]

    async def ask_all():
        async with openai.AsyncOpenAI(
            base_url=served.base_url, api_key="any", max_retries=0
        ) as client:
            asked = [
                client.chat.completions.create(model="any", messages=[user(text)]) for text in texts
            ]
            return await asyncio.gather(*asked)

    answers = [completion.choices[0].message.content for completion in asyncio.run(ask_all())]
    expected = [answer_of([user(text)]) for text in texts]

    # A GGUF file computes in half precision, in which the batch decides near ties.
    parted = [(a, e) for a, e in zip(answers, expected, strict=True) if a != e]
    assert len(parted) <= (5 if served.engine.enforces_schemas else 0)


def test_a_stop_string_ends_the_answer_before_it(served):
    whole = served.text("The lantern", max_tokens=40)
    stop = whole[len(whole) // 2 :][:4]
    cut = whole[: whole.index(stop)]

    completion = served.ask("The lantern", max_tokens=40, stop=["never written", stop])
    events = list(served.ask("The lantern", max_tokens=40, stop=stop, stream=True))

    assert completion.choices[0].message.content == cut
    assert completion.choices[0].finish_reason == "stop"
    assert streamed(events) == cut
    assert events[-1].choices[0].finish_reason == "stop"


def test_a_stop_string_as_long_as_a_body_keeps_nobody_waiting(served, answer_of):
    completion = served.ask("Hello", stop="x" * 1_000_000, timeout=10)

    assert alike(served, completion.choices[0].message.content, answer_of([user("Hello")]))


@pytest.mark.parametrize("begun", [0, 3])
def test_each_stop_token_of_the_release_ends_an_answer(release, part, plain, begun, tmp_path):
    """Also one that llama.cpp does not know, and where a stop string could have begun."""
    tokenizer, model = plain
    prompt = encode_prompt(tokenizer, [user("Hello")])
    drawn = model.generate(torch.tensor([prompt]), do_sample=False, max_new_tokens=4)
    *before, last = drawn[0, len(prompt) :].tolist()
    folder = shutil.copytree(release.folder, tmp_path / "release")
    GenerationConfig(eos_token_id=[2, last], pad_token_id=2).save_pretrained(folder / "model")
    (folder / "manifest.json").unlink()
    write_manifest(folder, {"name": "student"})
    answer = tokenizer.decode(before)
    stop = [answer[-begun:] + "never written"] if begun else None
    with serving(Release.open(folder), part) as served:
        completion = served.ask("Hello", stop=stop)

    assert completion.choices[0].message.content == answer
    assert completion.choices[0].finish_reason == "stop"
    assert completion.usage.completion_tokens == 4


def test_a_greedy_answer_is_the_same_beside_sampled_ones(served, answer_of):
    async def ask_all():
        async with openai.AsyncOpenAI(
            base_url=served.base_url, api_key="any", max_retries=0
        ) as client:
            asked = [
                client.chat.completions.create(
                    model="any", messages=[user("Copper")], temperature=heat, top_p=top_p
                )
                for heat, top_p in ((0, 1), (2, 1), (2, 0.9), (2, 0.0))
            ]
            return await asyncio.gather(*asked)

    greedy, free, narrow, narrowest = (
        completion.choices[0].message.content for completion in asyncio.run(ask_all())
    )

    assert alike(served, greedy, answer_of([user("Copper")]))
    assert alike(served, narrowest, greedy)
    assert len({greedy, free, narrow}) == 3


def test_the_room_that_a_prompt_leaves_is_used_to_the_last_token(served):
    prompt = served.ask("word " * 300, max_tokens=1).usage.prompt_tokens

    completion = served.ask("word " * 300, max_tokens=CONTEXT - prompt)

    assert completion.usage.total_tokens == CONTEXT
    with pytest.raises(openai.BadRequestError) as refused:
        served.ask("word " * 300, max_tokens=CONTEXT - prompt + 1)
    assert refused.value.code == "context_length_exceeded"
    numbers = (str(prompt), str(CONTEXT - prompt + 1), str(CONTEXT))
    assert all(number in refused.value.body["message"] for number in numbers)


def test_a_prompt_beyond_the_context_harms_nobody(served, answer_of):
    with pytest.raises(openai.BadRequestError, match="context holds 512"):
        served.ask("word " * 5000)

    assert alike(served, served.text("Hello"), answer_of([user("Hello")]))


def test_a_client_that_goes_frees_its_slot_at_once(release, part):
    with serving(release, part, slots=1, queue=1, queue_timeout_s=15, **ROOMY) as served:
        stream = served.ask("Endless", stream=True, **ENDLESS)
        next(stream)
        next(stream)
        stream.close()
        after_stream = served.text("Next")
        with pytest.raises(openai.APITimeoutError):
            served.client(timeout=0.5).chat.completions.create(
                model="any", messages=[user("Endless")], **ENDLESS
            )
        after_whole = served.text("Next")

    assert after_stream == after_whole


def test_a_full_queue_says_when_to_try_again_and_who_leaves_it_frees_a_place(release):
    async def scenario(base_url):
        async with openai.AsyncOpenAI(base_url=base_url, api_key="any", max_retries=0) as client:
            patient = client.with_options(max_retries=1)  # should it come before the place is free
            running = await client.chat.completions.create(
                model="any", messages=[user("Endless")], stream=True, **ENDLESS
            )
            await anext(running)
            two = {asyncio.create_task(ask(client, text)) for text in ("First", "Second")}
            (refused,), (waiting,) = await asyncio.wait(two, return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()
            await asyncio.wait([waiting])
            # The answer that runs goes on: the only place is that of the client which has left.
            with pytest.raises(openai.RateLimitError, match="No slot came free"):
                await ask(patient, "Third")
            await running.close()
            return refused.exception(), await ask(patient, "Third")

    async def ask(client, text):
        completion = await client.chat.completions.create(model="any", messages=[user(text)])
        return completion.choices[0].message.content

    with serving(release, slots=1, queue=1, queue_timeout_s=2, **ROOMY) as served:
        refused, third = asyncio.run(scenario(served.base_url))
        alone = served.text("Third")

    assert isinstance(refused, openai.RateLimitError)
    assert refused.type == "rate_limit_error"
    assert "1 slots and 1 places" in refused.body["message"]
    assert 1 <= int(refused.response.headers["Retry-After"]) <= 60
    assert third == alone


def test_who_waits_too_long_for_a_slot_is_told_so(release):
    with (
        serving(release, slots=1, queue_timeout_s=0.2, **ROOMY) as served,
        served.ask("Endless", stream=True, **ENDLESS) as running,
    ):
        next(running)
        with pytest.raises(openai.RateLimitError, match=r"No slot came free in 0\.2 s"):
            served.ask("Hello")


def test_an_answer_beyond_the_deadline_is_broken_off(release):
    with serving(release, slots=1, timeout_s=1, **ROOMY) as served:
        with pytest.raises(openai.InternalServerError) as late:
            served.ask("Endless", **ENDLESS)
        events = served.ask("Endless", stream=True, **ENDLESS)
        with pytest.raises(openai.APIError, match="more than 1 s"):
            list(events)
        after = served.text("Hello")

    assert late.value.status_code == 504
    assert after


def test_an_engine_that_has_died_is_told_by_health_and_by_503(release, part):
    with serving(release, part) as served:
        before = served.health()
        if part == "merged":
            served.engine._manager.add_request([1] * 10_000, max_new_tokens=5)
        else:
            served.engine._server.process.kill()
        with pytest.raises(openai.InternalServerError) as dead:
            _ = [served.ask("Hello") for _ in range(1000)]
        after = served.health()

    assert before == (200, {"status": "ok"})
    assert dead.value.status_code == 503
    assert dead.value.code == "engine_error"
    assert after[0] == 503


def test_a_seed_repeats_a_sampled_answer_of_a_gguf_file(gguf):
    drawn = [gguf.text("Violin", temperature=2, seed=seed) for seed in (-3, -3, 2**63 - 1)]

    assert drawn[0] == drawn[1] != drawn[2]


def test_a_seed_has_no_effect_on_the_merged_model(merged):
    drawn = {merged.text("Violin", temperature=2, seed=7) for _ in range(4)}

    assert len(drawn) == 4
