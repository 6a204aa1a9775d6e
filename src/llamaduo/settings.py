"""Kedro's project settings."""

import logging

from llamaduo.files import OwnerOnly
from llamaduo.hooks import Pins
from llamaduo.input_check import InputCheck, ParameterCheck
from llamaduo.progress_hook import Progress
from llamaduo.tracking import Tracking

# The last hook whose turn is last comes last of all: what a check refuses changes no umask.
HOOKS = (ParameterCheck(), Pins(), InputCheck(), Progress(), Tracking(), OwnerOnly())

CONFIG_LOADER_ARGS = {
    "base_env": "base",
    "default_run_env": "local",
    # An environment overrides single keys of an entry or a group, not the whole of it.
    "merge_strategy": {"catalog": "soft", "globals": "soft", "parameters": "soft"},
}

# At DEBUG, Kedro logs the arguments of each hook, and the credentials are among them.
logging.getLogger("kedro.framework.hooks.manager").setLevel(logging.INFO)
