"""Trained pipelines in the form of other libraries."""
