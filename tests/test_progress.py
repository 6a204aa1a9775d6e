"""The display of progress."""

import pytest

from llamaduo.progress import ProgressDisplay


def test_without_a_terminal_a_line_is_written_each_tenth(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with ProgressDisplay("training") as display:
        for done in range(1, 101):
            display.show(done, 100, f"loss {done}")

    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 10
    assert lines[0].startswith("training 10/100, loss 10, ")
    assert lines[-1] == "training 100/100, loss 100, 0 s left"


def test_a_quiet_display_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressDisplay("responses", quiet=True) as display:
        display.show(1, 1)

    assert capsys.readouterr().err == ""
