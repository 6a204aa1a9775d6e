"""llama.cpp's server in a process of its own: ``python -m llamaduo.local_llm.llama_server``.

A process, because the server cannot be stopped from within while it answers, and because whatever
goes wrong in it must not end ours.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from llamaduo.local_llm.child import child, end_with_the_parent
from llamaduo.local_llm.engines import InferenceError

KEY = "LLAMA_API_KEY"
"""The environment variable of the key: the command line is everybody's to read."""


NEUTRAL = {
    "samplers": ["temperature", "top_p"],  # in the order of transformers
    "top_k": 0,
    "min_p": 0.0,
    "repeat_penalty": 1.0,
}
"""Parameters of a request without which its own defaults would narrow what is drawn."""
STEP = 256
"""Of a context, in tokens: it rounds to it."""


@dataclass(frozen=True)
class LlamaServer:
    """A server on loopback that nobody else has the key of."""

    address: str
    """Without a path."""
    api_key: str = field(repr=False)
    process: subprocess.Popen[str] = field(repr=False)

    @property
    def base_url(self) -> str:
        """As the OpenAI client wants it."""
        return f"{self.address}/v1"

    def is_alive(self) -> bool:
        """Whether its process runs."""
        return self.process.poll() is None


@contextmanager
def llama_server(model: Path, slots: int, context: int) -> Iterator[LlamaServer]:
    """Serve a GGUF file until the block ends; the process also ends with this one.

    Args:
        slots: Sequences that are generated together; further requests wait.
        context: Tokens of each, prompt and response together; rounded up.

    Raises:
        InferenceError: The file cannot be loaded; the message carries llama.cpp's own.
    """
    import torch

    key = secrets.token_urlsafe()
    threads = torch.get_num_threads()  # OMP_NUM_THREADS included
    rounded = -(-context // STEP) * STEP
    arguments = [str(model), str(slots), str(rounded), str(threads)]
    with child("llamaduo.local_llm.llama_server", *arguments, env={KEY: key}) as started:
        assert started.process.stdout is not None  # noqa: S101  (it is a pipe)
        address = started.process.stdout.readline().strip()
        if not address:
            errors = [line.partition(" E ")[2].strip() for line in started.said() if " E " in line]
            raise InferenceError(
                f"llama.cpp cannot load {model}: {errors[0] if errors else 'it says not why'}"
            )
        yield LlamaServer(address, key, started.process)


def main(model: str, slots: int, context: int, threads: int) -> None:
    """Load a file, print the address, and serve until standard input ends."""
    import xllamacpp

    end_with_the_parent()
    parameters = xllamacpp.CommonParams()
    parameters.model.path = model
    parameters.n_parallel = slots
    parameters.n_ctx = slots * context  # it is shared out among them
    parameters.api_keys = [os.environ.pop(KEY)]
    # Its own default lets every page of a browser read the answers.
    parameters.cors_origins, parameters.cors_origins_explicit = "http://127.0.0.1", True
    parameters.port = 0  # any free one
    parameters.ui = False
    parameters.endpoint_slots = False  # it would show the prompts of others
    parameters.cache_ram_mib = 0
    parameters.verbosity = 1  # errors
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = threads
    server = xllamacpp.Server(parameters)
    print(server.listening_address, flush=True)  # noqa: T201
    threading.Event().wait()


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
