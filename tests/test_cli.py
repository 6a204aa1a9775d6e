import pytest
from kedro.validation.exceptions import DataValidationError

from llamaduo.cli import resuming_command, sentence_of


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


def test_a_failed_check_is_said_without_personal_details():
    error = DataValidationError("prompt: 'write to anna@firma.de' is no number")

    assert sentence_of(error).startswith("prompt: 'write to ")
    assert "firma" not in sentence_of(error)
