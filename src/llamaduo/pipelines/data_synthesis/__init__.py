"""The data_synthesis pipeline."""

from llamaduo.pipelines.data_synthesis.pipeline import create_pipeline

__all__ = ["create_pipeline"]
