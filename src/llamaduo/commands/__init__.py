"""The commands beside ``kedro run``."""
