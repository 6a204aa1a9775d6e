"""``python -m llamaduo``: ``run``, where the package is installed without its project."""

from llamaduo.cli import configure_package, run

if __name__ == "__main__":
    configure_package()
    run(prog_name="python -m llamaduo")
