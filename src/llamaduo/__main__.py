"""``python -m llamaduo``: ``run``, where the package is installed without its project."""

from llamaduo.cli import run
from llamaduo.commands.start import configure_package

if __name__ == "__main__":
    configure_package()
    run(prog_name="python -m llamaduo")
