"""The small model that learns the task: its base, its template, its training and its inference.

Torch and what builds on it are imported inside functions, so that Kedro's command line stays quick.
"""

import os

# Where cores are shared, threads that wait spinning slow each other five- to tenfold. OpenMP reads
# this once, when torch loads it.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
