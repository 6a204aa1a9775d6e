"""How many examples Hypothesis makes: few in each run of the tests, many by make soak."""

from hypothesis import settings

settings.register_profile("few", max_examples=200, deadline=None)
settings.register_profile("soak", max_examples=5000, deadline=None)
settings.load_profile("few")
