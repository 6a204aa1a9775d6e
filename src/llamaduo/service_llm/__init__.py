"""Asking service LLMs: the client, its journal, and the text of requests and replies."""
