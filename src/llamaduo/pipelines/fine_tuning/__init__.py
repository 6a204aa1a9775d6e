"""The fine_tuning pipeline."""

from llamaduo.pipelines.fine_tuning.pipeline import create_pipeline

__all__ = ["create_pipeline"]
