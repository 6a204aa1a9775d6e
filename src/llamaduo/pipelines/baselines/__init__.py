"""The baselines pipeline."""

from llamaduo.pipelines.baselines.pipeline import create_pipeline

__all__ = ["create_pipeline"]
