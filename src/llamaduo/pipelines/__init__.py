"""The loop's pipelines, and those run by name."""
