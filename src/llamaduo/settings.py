"""Kedro's project settings."""

from llamaduo.hooks import InputCheck, Progress, SlicePins

HOOKS = (SlicePins(), InputCheck(), Progress())

CONFIG_LOADER_ARGS = {
    "base_env": "base",
    "default_run_env": "local",
    # An environment overrides single keys of an entry or a group, not the whole of it.
    "merge_strategy": {"catalog": "soft", "parameters": "soft"},
}
