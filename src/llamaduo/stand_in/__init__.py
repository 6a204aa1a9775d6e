"""The embedded stand-in for a service LLM: an offline server that knows one task."""
