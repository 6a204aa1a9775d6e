"""``python -m llamaduo`` runs the packaged project."""

from kedro.framework.cli.utils import find_run_command
from kedro.framework.project import configure_project


def main() -> None:
    """Run the project's own ``run`` command."""
    configure_project("llamaduo")
    find_run_command("llamaduo")()


if __name__ == "__main__":
    main()
