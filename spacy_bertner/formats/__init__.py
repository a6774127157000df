"""Annotated files, read into Docs."""
