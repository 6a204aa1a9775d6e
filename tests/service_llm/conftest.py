import pytest
from pydantic import SecretStr

from llamaduo.service_llm.budget import Price
from llamaduo.service_llm.client import Request, ServiceLLM
from llamaduo.service_llm.endpoints import Limits
from llamaduo.service_llm.journal import Journal
from tests.fakes.openai_server import FakeOpenAI, echo

PRICE = Price(input=2.5, output=10)


def request(number, **settings):
    message = {"role": "user", "content": f"Please say this: item-{number}"}
    return Request(**{"messages": [message], "max_tokens": 64, "expected_tokens": 12, **settings})


def requests(count):
    return [request(number) for number in range(count)]


def item_of(body):
    return body["messages"][-1]["content"].split()[-1]


@pytest.fixture
def server():
    with FakeOpenAI(answer=echo) as running:
        yield running


def service_at(base_url, path, **settings):
    return ServiceLLM(
        **{
            "endpoint": "fake",
            "base_url": base_url,
            "model": "m",
            "api_key": SecretStr("sk-secret"),
            "journal": Journal(path),
            "limits": Limits(concurrency=8, timeout_s=10, deadline_s=60),
            "price": PRICE,
            **settings,
        }
    )


@pytest.fixture
def service(server, tmp_path):
    return service_at(server.base_url, tmp_path / "journal.sqlite")
