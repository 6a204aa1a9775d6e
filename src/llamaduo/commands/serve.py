"""``kedro serve``."""

import ipaddress
import logging
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import click

from llamaduo.commands.start import errors_as_sentences, project_context, run_option

NO_RELEASE = "there is no release yet; make one: kedro run --pipelines=deployment"

logger = logging.getLogger(__name__)


class _Found(NamedTuple):
    """What the project knows."""

    folder: Path
    api_key: str


@click.command(params=[run_option("env")])
@click.option(
    "--model",
    default="merged",
    show_default=True,
    help="What of the release is served: merged, or a quantization such as q8_0.",
)
@click.option("--load-version", metavar="VERSION", help="Of the release; without it the latest.")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen at.")
@click.option("--port", default=8000, show_default=True, type=click.IntRange(0, 65535))
@click.option(
    "--slots",
    default=16,
    show_default=True,
    type=click.IntRange(1),
    help="Requests answered together.",
)
@click.option(
    "--queue", default=64, show_default=True, type=click.IntRange(0), help="Requests that wait."
)
@click.option(
    "--context",
    type=click.IntRange(2),
    help="Tokens of prompt and answer together; without it 2048, or what the model reads.",
)
@click.option(
    "--max-tokens", default=1024, show_default=True, type=click.IntRange(1), help="Of an answer."
)
@click.option(
    "--max-body",
    default=2**20,
    show_default=True,
    type=click.IntRange(1),
    help="Bytes of a request.",
)
@click.option(
    "--timeout",
    "timeout_s",
    default=120.0,
    show_default=True,
    type=click.FloatRange(0, min_open=True),
    help="Seconds from a request's first byte to the last of its answer.",
)
@click.option(
    "--queue-timeout",
    "queue_timeout_s",
    default=60.0,
    show_default=True,
    type=click.FloatRange(0, min_open=True),
    help="Seconds that a request waits for a slot.",
)
def serve(
    env: str | None,
    model: str,
    load_version: str | None,
    host: str,
    port: int,
    context: int | None,
    **limits: Any,
) -> None:
    """Serve the released student to applications that speak OpenAI's chat completions.

    An application changes by its base URL alone. A key is asked for where LLAMADUO_API_KEY, or the
    entry serve of the credentials, has one.

    Exit code: 0 ended by Ctrl-C or SIGTERM, 1 failed.
    """
    found = _find(env, load_version)
    with errors_as_sentences():
        _serve(found, model, host, port, context, limits)


def _find(env: str | None, load_version: str | None) -> _Found:
    with project_context(env) as project:
        catalog = project.catalog
        if "release" not in catalog or not (load_version or catalog.exists("release")):
            raise click.ClickException(NO_RELEASE)
        folder = catalog.load("release", version=load_version)
        credentials = project.config_loader["credentials"].get("serve") or {}
    return _Found(folder, (credentials.get("api_key") or "").strip())


def _serve(
    found: _Found, model: str, host: str, port: int, context: int | None, limits: dict[str, Any]
) -> None:
    from llamaduo.local_llm.release import Release
    from llamaduo.serving.app import build_app
    from llamaduo.serving.limits import Limits
    from llamaduo.serving.loading import context_of, load_engine, load_student
    from llamaduo.serving.server import Server, bound, serve_until_ended

    with _port_in_words(host, port):
        held = bound(host, port)
    with held:
        release = Release.open(found.folder)
        student = load_student(release, model)
        allowed = Limits(context=context_of(student, context), **limits)
        engine = load_engine(release, model, student, allowed.slots, allowed.context)
        with closing(engine):
            with _port_in_words(host, port):
                held.listen()
            app = build_app(student, engine, allowed, found.api_key)
            line = _ready(student.name, host, held, found.api_key)
            serve_until_ended(Server(app, engine, lambda: click.echo(line)), held)


@contextmanager
def _port_in_words(host: str, port: int) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise click.ClickException(
            f"cannot listen at {host} port {port}: {error.strerror}; choose another by --host and "
            "--port"
        ) from error


def _ready(name: str, host: str, held: socket.socket, api_key: str) -> str:
    address, port = held.getsockname()[:2]
    if not (api_key or ipaddress.ip_address(address).is_loopback):
        logger.warning(
            "%s is answered to everybody who reaches %s: set LLAMADUO_API_KEY, or leave out --host",
            name,
            address,
        )
    shown = f"[{host}]" if ":" in host else host
    key = "the key of the credentials" if api_key else "any key"
    return (
        f"{name} answers at http://{shown}:{port}/v1 (set base_url of your OpenAI client to it, "
        f"with {key}); Ctrl-C ends it"
    )
