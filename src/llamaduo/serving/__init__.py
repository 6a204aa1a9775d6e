"""An OpenAI-compatible server over a release: ``kedro serve``.

The engines are libraries' own, transformers' continuous batching and llama.cpp's server. Before
them stands a front of ours, because no library's server holds what an application may count on:
``transformers serve`` (5.24) has no key and no limits, leaves out temperature and stop strings, and
one prompt beyond the context ends its worker for everybody; llama.cpp's has no limit of the body,
of the queue or of the time, and answers without a grammar where it does not know a schema's word.
Nor do they write prompts as this project's training and evaluation did.
"""
