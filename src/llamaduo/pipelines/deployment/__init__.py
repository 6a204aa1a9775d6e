"""The deployment pipeline."""

from llamaduo.pipelines.deployment.pipeline import create_pipeline

__all__ = ["create_pipeline"]
