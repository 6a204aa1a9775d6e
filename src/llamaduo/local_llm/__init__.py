"""The small model that learns the task: its base, its template, its training and its inference.

Torch and what builds on it are imported inside functions, so that Kedro's command line stays quick.
"""
