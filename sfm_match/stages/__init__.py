"""Stages of the pipeline: units in, files out."""
