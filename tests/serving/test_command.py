"""``kedro serve`` as a user runs it."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import openai
import pytest
from click.testing import CliRunner

from llamaduo.cli import cli
from llamaduo.serving import loading
from tests.serving.conftest import CONTEXT

CONF = Path(__file__).parents[2] / "conf"
SCRIPT = "from llamaduo.cli import cli; cli()"
"""What the console script ``llamaduo`` is."""
VERSION = "2026-01-02T03.04.05.678Z"


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with the configuration alone, as beside an installed package."""
    shutil.copytree(CONF, tmp_path / "conf", ignore=shutil.ignore_patterns("local"))
    (tmp_path / "conf/local").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LLAMADUO_API_KEY", raising=False)
    return tmp_path


@pytest.fixture
def released(project, release):
    """With a release."""
    folder = project / "data/06_models/release" / VERSION
    folder.mkdir(parents=True)
    shutil.copytree(release.folder, folder / "release")
    return folder / "release"


def failed(*options):
    """The sentence with which the command fails."""
    result = CliRunner().invoke(cli, ["serve", *options])
    assert result.exit_code == 1, result.output
    assert result.output.startswith("Error: ")
    return " ".join(result.output.split())


@contextmanager
def start(*options, **environment):
    """The command in a process of its own, which ends with the test."""
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, "serve", "--port=0", f"--context={CONTEXT}", *options],
        env={**os.environ, "COLUMNS": "200", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        start_new_session=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def begin_an_answer(ready, api_key):
    """The rest of the stream of a long answer."""
    base_url = next(word for word in ready.split() if word.startswith("http://"))
    client = openai.OpenAI(base_url=base_url, api_key=api_key, max_retries=0)
    messages = [{"role": "user", "content": "Hello"}]
    events = client.chat.completions.create(
        model="any", messages=messages, max_tokens=CONTEXT - 40, stream=True
    )
    next(events)
    return events


def test_without_a_release_the_command_says_how_one_is_made(project):
    assert "kedro run --pipelines=deployment" in failed()


def test_a_part_that_the_release_has_not_is_answered_with_those_that_it_has(released):
    assert "has no q4_k_m; choose --model from merged, f16" in failed("--model=q4_k_m")


def test_a_context_beyond_what_the_student_reads_is_refused(released):
    assert "reads 131072 tokens" in failed("--context=131073")


def test_a_changed_file_is_named(released):
    tokenizer = released / "model/tokenizer_config.json"
    tokenizer.write_text(tokenizer.read_text(encoding="utf-8") + "\n", encoding="utf-8")

    assert "tokenizer_config.json is not the file that was released" in failed()


def test_a_port_that_is_taken_is_told(released):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        assert f"cannot listen at 127.0.0.1 port {port}" in failed(f"--port={port}")


def test_a_port_that_is_taken_while_the_model_loads_is_told(released, monkeypatch):
    def take_it_and_load(*arguments):
        # Of two sockets that are bound and do not listen yet, the first that listens has the port.
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", port))
        taken.listen()
        return load_engine(*arguments)

    load_engine = loading.load_engine
    monkeypatch.setattr(loading, "load_engine", take_it_and_load)
    with socket.socket() as taken:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]

        assert f"cannot listen at 127.0.0.1 port {port}" in failed(f"--port={port}")


def test_ctrl_c_ends_the_command_at_once_though_a_request_runs(released):
    with start("--model=f16", LLAMADUO_API_KEY="secret\n") as process:
        ready = next(process.stdout)
        running = begin_an_answer(ready, "secret")
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does it
        with pytest.raises(openai.APIError, match="cannot answer"):
            list(running)
        rest, _ = process.communicate(timeout=20)

    assert "student-f16 answers at http://127.0.0.1:" in ready
    assert "with the key of the credentials" in ready
    assert (process.returncode, rest) == (0, "")


def test_an_address_that_others_reach_without_a_key_is_warned_of_and_sigterm_ends_it(released):
    with start("--host=0.0.0.0") as process:
        warning, ready = (next(process.stdout) for _ in range(2))
        running = begin_an_answer(ready, "any")
        process.send_signal(signal.SIGTERM)
        with pytest.raises(openai.APIError, match="cannot answer"):
            list(running)
        rest, _ = process.communicate(timeout=20)

    assert "set LLAMADUO_API_KEY" in warning
    assert "with any key" in ready
    assert (process.returncode, rest) == (0, "")


def test_an_older_release_can_be_served(released):
    newer = released.parents[1] / "2026-02-02T03.04.05.678Z/release"
    shutil.copytree(released, newer)
    manifest = json.loads((newer / "manifest.json").read_text(encoding="utf-8"))
    (newer / "manifest.json").write_text(json.dumps({**manifest, "name": "newer"}))

    assert failed("--model=q9").endswith("choose --model from merged")
    assert "from merged, f16" in failed("--model=q9", f"--load-version={VERSION}")
