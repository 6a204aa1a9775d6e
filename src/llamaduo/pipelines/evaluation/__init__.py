"""The evaluation pipeline."""

from llamaduo.pipelines.evaluation.pipeline import create_pipeline

__all__ = ["create_pipeline"]
