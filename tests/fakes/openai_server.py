"""A real OpenAI-compatible server on loopback with scripted faults and its own ledger.

It answers as the stand-in does, or with any function, unless a fault is scripted. ``served`` is the
oracle: what the client claims to have sent, received and paid for is compared with it.

    python -m tests.fakes.openai_server '{"latency_s": 0.2}'

serves in a process of its own and prints its base URL.
"""

import asyncio
import json
import random
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from email.utils import formatdate
from pathlib import Path

from llamaduo.service_llm.client import PREFLIGHT_TOKENS
from llamaduo.stand_in.completion import complete

JSON = "application/json"
HTML = "<html><body>502 Bad Gateway</body></html>"


@dataclass
class Fault:
    """What is done in place of an ordinary answer."""

    status: int = 200
    body: str | None = None
    """None: the ordinary answer."""
    headers: dict[str, str] = field(default_factory=dict)
    delay_s: float = 0.0
    """Before anything is sent; a client may have left by then, and is billed all the same."""
    drip_s: float = 0.0
    """Between any two bytes of the body."""
    keep: int | None = None
    """Close the connection after so many bytes of the body; at -1 before the head."""
    name: str = ""
    asked_to_wait_s: float = 0.0
    asked_to_wait_until: float = 0.0
    """Seconds since the epoch; a date runs on until the request arrives."""
    is_billed: bool = False
    """Though it is no good answer: the model has done its work."""


@dataclass
class Served:
    """A line of the ledger."""

    body: dict
    status: int
    name: str
    at: float
    """Arrival, seconds of the monotonic clock."""
    not_before: float = 0.0
    """The next request for the same is welcome from then on."""
    usage: dict | None = None
    """What is billed; None for nothing."""
    answered: bool = False
    """A whole good answer was written to the socket."""


def ordinary(body: dict) -> dict:
    return complete({**body, "model": "stand-in-triage"})


def is_preflight(body: dict) -> bool:
    return PREFLIGHT_TOKENS in (body.get("max_tokens"), body.get("max_completion_tokens"))


def echo(body: dict) -> dict:
    """Answer with the prompt's last word, quickly."""
    prompt = body["messages"][-1]["content"]
    return completion(f"answer to {prompt.split()[-1]}", usage=usage_of(prompt, 12))


def usage_of(prompt: str, completion_tokens: int) -> dict:
    prompt_tokens = len(prompt.encode()) // 4
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }


def completion(content, finish="stop", usage=None, model="m", **message) -> dict:
    choice = {
        "index": 0,
        "finish_reason": finish,
        "message": {"role": "assistant", "content": content, **message},
    }
    return {"id": "c", "object": "chat.completion", "created": 0, "model": model} | {
        "choices": [choice],
        "usage": usage or usage_of("four", 1),
    }


def mistake(status: int, message: str) -> tuple[int, str]:
    return status, json.dumps({"error": {"message": message, "code": status}})


@dataclass
class FakeOpenAI:
    """Use as a context manager; ``faults`` are served first, in their order."""

    faults: deque[Fault] = field(default_factory=deque)
    script: Callable[[dict], Fault | None] = lambda body: None
    """Asked for a fault where none is left in ``faults``."""
    answer: Callable[[dict], dict] = ordinary
    rewrite: Callable[[str], str] = str
    """Changes the text of each ordinary answer."""
    latency_s: float = 0.0
    models: list[str] | None = None
    """Base models, as a vLLM server has them; None serves any model, and loads no adapter."""
    loads_adapters: bool = True
    """Whether VLLM_ALLOW_RUNTIME_LORA_UPDATING is set."""
    unknown: tuple[int, str] = (404, '{"detail": "Not Found"}')
    """Status and body for a path that it does not know."""
    sees: Callable[[Path], bool] = Path.is_file
    """Whether a file of an adapter is on this machine too."""
    adapters: dict[str, Path] = field(default_factory=dict)
    """By name: the folder it was loaded from."""
    served: list[Served] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)
    """Values of the authorization header that were seen."""

    def __enter__(self):
        self._loop = asyncio.new_event_loop()
        self._server = self._loop.run_until_complete(self.listen())
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        return self

    def __exit__(self, *_):
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def asked(self) -> list[dict]:
        """Bodies of all requests but the preflight's."""
        return [e.body for e in self.served if not is_preflight(e.body)]

    async def listen(self):
        server = await asyncio.start_server(self._connection, "127.0.0.1", 0, backlog=2048)
        self.base_url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        return server

    async def _end(self):
        self._server.close()
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)

    async def _connection(self, reader, writer):
        try:
            while await self._exchange(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def _exchange(self, reader, writer) -> bool:
        """Answer one request; whether the connection stays open."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.split("\r\n")
        headers = {
            name.lower(): value.strip()
            for name, _, value in (line.partition(":") for line in lines)
        }
        raw = await reader.readexactly(int(headers.get("content-length", 0)))
        body = json.loads(raw or b"{}")
        self.keys.add(headers.get("authorization", ""))
        if "/chat/completions" not in first:
            status, text = self._about_models(first.split()[1], body)
            await self._send(writer, status, {}, text)
            return True
        if self.models is not None and body["model"] not in {*self.models, *self.adapters}:
            status, text = mistake(404, f"The model `{body['model']}` does not exist.")
            await self._send(writer, status, {}, text)
            return True
        fault = (self.faults.popleft() if self.faults else self.script(body)) or Fault()
        entry = Served(body, fault.status, fault.name, time.monotonic())
        self.served.append(entry)
        rest = max(0.0, fault.asked_to_wait_until - time.time())
        entry.not_before = entry.at + fault.asked_to_wait_s + rest
        answer = self._text(body, fault, entry)
        if delay := fault.delay_s or self.latency_s:
            await asyncio.sleep(delay)
        if fault.keep != -1:
            await self._send(writer, fault.status, fault.headers, answer, fault.drip_s, fault.keep)
        entry.answered = fault.body is None and fault.keep is None and fault.status == 200
        return fault.keep is None

    def _about_models(self, path: str, body: dict) -> tuple[int, str]:
        """What vLLM answers to all but completions."""
        if self.models is not None and path == "/v1/models":
            served = [{"id": name} for name in (*self.models, *self.adapters)]
            return 200, json.dumps({"object": "list", "data": served})
        if self.models is None or path != "/v1/load_lora_adapter" or not self.loads_adapters:
            return self.unknown
        if not body:
            return mistake(400, "2 validation errors: lora_name: Field required")
        name, folder = body["lora_name"], Path(body["lora_path"])
        if name in self.adapters:
            return mistake(400, f"The lora adapter '{name}' has already been loaded.")
        if not self.sees(folder / "adapter_config.json"):
            return mistake(404, f"Loading lora {name} failed: No adapter found for {folder}")
        self.adapters[name] = folder
        return 200, f"Success: LoRA adapter '{name}' added successfully."

    def _text(self, body: dict, fault: Fault, entry: Served) -> str:
        if fault.body is not None:
            if '"usage"' in fault.body:
                entry.usage = json.loads(fault.body)["usage"]
            elif fault.is_billed:
                entry.usage = self.answer(body)["usage"]
            return fault.body
        answer = completion("OK") if is_preflight(body) else self.answer(body)
        entry.usage = answer["usage"]
        message = answer["choices"][0]["message"]
        if not is_preflight(body):
            message["content"] = self.rewrite(message["content"])
        return json.dumps(answer)

    async def _send(self, writer, status, headers, text, drip_s=0.0, keep=None):
        content = text.encode()
        kind = "text/html" if text.startswith("<") else JSON
        lines = {"content-type": kind, "content-length": str(len(content)), **headers}
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        writer.write(f"HTTP/1.1 {status} Scripted\r\n{head}\r\n".encode("latin-1"))
        content = content if keep is None else content[:keep]
        if not drip_s:
            writer.write(content)
        else:
            for position in range(len(content)):
                writer.write(content[position : position + 1])
                await writer.drain()
                await asyncio.sleep(drip_s)
        await writer.drain()


def rate_limit(form: str, seconds: float) -> Fault:
    """429 with one of the forms of Retry-After, or none."""
    error = json.dumps({"error": {"message": "slow down", "code": "rate_limit_exceeded"}})
    fault = Fault(429, error, name=f"429 {form}")
    if form == "date":
        fault.asked_to_wait_until = float(int(time.time() + seconds))
        fault.headers = {"Retry-After": formatdate(fault.asked_to_wait_until, usegmt=True)}
    elif form != "none":
        header, value, fault.asked_to_wait_s = {
            "seconds": ("Retry-After", f"{seconds:.0f}", round(seconds)),
            "fraction": ("Retry-After", f"{seconds:.2f}", round(seconds, 2)),
            "milliseconds": ("retry-after-ms", f"{1000 * seconds:.0f}", round(seconds, 3)),
        }[form]
        fault.headers = {header: value}
    return fault


def passing_fault(kind: str, rng: random.Random, hang_s: float) -> Fault:
    """One fault of a kind that passes when it is tried again."""
    error = json.dumps({"error": {"message": "try later"}})
    if kind == "429":
        forms = ("none", "seconds", "fraction", "milliseconds", "date")
        return rate_limit(rng.choice(forms), rng.uniform(0.5, 1.5))
    faults = {
        "500": Fault(500, error),
        "503": Fault(503, error),
        "close": Fault(keep=rng.choice([-1, 0, 40])),
        "hang": Fault(delay_s=hang_s),
        "drip": Fault(drip_s=hang_s / 20),
        "html": Fault(body=HTML),
        "cut": Fault(body='{"id": "c", "choices": [{"index": 0, "mess', is_billed=True),
        "null": Fault(body=json.dumps(completion(None))),
        "length": Fault(body=json.dumps(completion("answer t", "length"))),
        "error inside": Fault(body=json.dumps({"error": {"message": "upstream", "code": 502}})),
        "no choices": Fault(body='{"choices": null}', is_billed=True),
    }
    fault = faults[kind]
    fault.name = kind
    return fault


KINDS = ("429", "500", "503", "close", "hang", "html", "cut", "null", "length")
"""The nine of the measured comparison."""


def random_faults(share: float, seed: int, kinds=KINDS, hang_s: float = 30.0):
    """A script in which each request fails with the same chance, each kind as often.

    An answer is cut off at the request's own limit only: twice the tokens are enough for it.
    """
    rng = random.Random(seed)
    limits: dict[str, int] = {}

    def script(body: dict) -> Fault | None:
        if rng.random() >= share:
            return None
        kind = rng.choice(kinds)
        prompt = body["messages"][-1]["content"]
        first = limits.setdefault(prompt, body["max_tokens"])
        if kind == "length" and body["max_tokens"] > first:
            return None
        return passing_fault(kind, rng, hang_s)

    return script


async def main(latency_s=0.0, padding=0):
    fake = FakeOpenAI(answer=echo, latency_s=latency_s, rewrite=lambda text: text + " " * padding)
    server = await fake.listen()
    print(fake.base_url, flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    settings = json.loads(sys.argv[1])
    try:
        import uvloop

        uvloop.run(main(**settings))
    except ImportError:
        asyncio.run(main(**settings))
