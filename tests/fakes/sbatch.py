#!/usr/bin/env python3
"""Slurm's ``sbatch`` on one machine: a job runs at once, if the one that it depends on succeeded.

Each job leaves its exit code in the folder of the variable ``SLURM_JOBS``, under its number.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

parser = argparse.ArgumentParser()
parser.add_argument("--parsable", action="store_true")
parser.add_argument("--wait", action="store_true")
parser.add_argument("--dependency", default="")
parser.add_argument("--kill-on-invalid-dep", choices=["yes"])
parser.add_argument("--output")
parser.add_argument("--wrap", required=True)
job = parser.parse_args()
jobs = Path(os.environ["SLURM_JOBS"])
number = len(list(jobs.iterdir())) + 1
after = job.dependency.removeprefix("afterok:")
code = "cancelled"
if not after or (jobs / after).read_text() == "0":
    with Path(job.output or f"slurm-{number}.out").open("wb") as output:
        done = subprocess.run(job.wrap, shell=True, stdout=output, stderr=output, check=False)
    code = str(done.returncode)
(jobs / str(number)).write_text(code)
print(number if job.parsable else f"Submitted batch job {number}")
sys.exit(int(code) if job.wait else 0)
