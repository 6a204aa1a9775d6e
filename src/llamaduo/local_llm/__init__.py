"""The small model that learns the task: its base, its template, its training and its inference.

Torch and what builds on it are imported inside functions, so that Kedro's command line stays quick.
"""

import os

# Threads that wait spinning slow each other down several times where cores are shared, and threads
# that sleep at once make a step 1.5 times as long where they are not: spin shortly, then sleep.
# OpenMP reads this once, when torch loads it; the training process inherits it.
os.environ.setdefault("GOMP_SPINCOUNT", "2000")
