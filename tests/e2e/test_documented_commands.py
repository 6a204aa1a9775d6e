"""Each command of the README and the pages: run here, or by the test that is named."""

import re
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
BLOCK = re.compile(r"```bash[^\n]*\n(.*?)```", re.DOTALL)
ELSEWHERE = {
    "kedro run": "test_a_newcomers_own_file_goes_from_nothing_to_an_honest_verdict",
    "kedro run --pipelines=coverage": "test_a_newcomers_own_file_goes_from_nothing_to_an_honest_verdict",
    "kedro doctor": "test_a_newcomers_own_file_goes_from_nothing_to_an_honest_verdict",
    "kedro run --resume": "test_killed",
    "kedro viz run --include-hooks --params=at=2": "",
}
"""Command: the test that runs it."""
UNTRIED = ("VLLM_ALLOW_RUNTIME_LORA_UPDATING=True vllm serve", "mlflow server", "pip install")
"""Other programs; the pages say that they were not run, or they install this project."""


def commands():
    for page in [REPOSITORY / "README.md", *sorted(REPOSITORY.glob("docs/*.md"))]:
        for block in BLOCK.findall(page.read_text(encoding="utf-8")):
            for line in block.replace("\\\n", " ").splitlines():
                if command := re.sub(r"\s+# .*", "", line).strip():
                    yield page.name, command
