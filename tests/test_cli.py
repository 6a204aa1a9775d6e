import pytest

from llamaduo.cli import resuming_command


@pytest.mark.parametrize(
    ("given", "command"),
    [
        ([], "kedro run --resume"),
        (
            ["--env=openai", "--params=loop.max_iterations=2"],
            "kedro run --env=openai --params=loop.max_iterations=2 --resume",
        ),
        (["--resume", "--env", "test"], "kedro run --env test --resume"),
        (["--env", "test", "--resume", "loop"], "kedro run --env test --resume"),
        (["--resume=loop", "--params", "a=two words"], "kedro run --params 'a=two words' --resume"),
    ],
)
def test_the_command_that_goes_on_repeats_what_was_given(given, command):
    assert resuming_command(given) == command
