"""Documents in, entities out: `python -m spacy bertner annotate`, and the same from Python.

One concept a file: `records` (one input record, and chunks of them), `readers` (files to records), `formats` (annotated
Docs to bytes), `docbin` (one DocBin out of many, without holding it), `worker` (a chunk through the pipeline, nothing
lost), `engines` and `ray_engine` (who runs the workers), `output` (whole records on disk, to be gone on with after a
kill), `progress` (the bar) and `run` (all of it together).
"""
