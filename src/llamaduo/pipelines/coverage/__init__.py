"""The coverage pipeline."""

from llamaduo.pipelines.coverage.pipeline import create_pipeline

__all__ = ["create_pipeline"]
