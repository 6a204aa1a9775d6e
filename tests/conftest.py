"""What tests of several folders share."""

import pytest
from hypothesis import settings

from llamaduo.local_llm.base_model import BaseModelSpec
from llamaduo.local_llm.demo_model import build_random

# How many examples Hypothesis makes: few in each run of the tests, many by make soak.
settings.register_profile("few", max_examples=200, deadline=None)
settings.register_profile("soak", max_examples=5000, deadline=None)
settings.load_profile("few")


@pytest.fixture(scope="session")
def random_model(tmp_path_factory) -> BaseModelSpec:
    """A chat model of two layers with random weights."""
    return BaseModelSpec(str(build_random(tmp_path_factory.mktemp("models"))))
