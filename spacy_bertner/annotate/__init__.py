"""Documents in, entities out: `python -m spacy bertner annotate`, and the same from Python.

One concept per file: `records` (one input record, and chunks of them), `inputs` (which files), `readers` (files to
records), `writers` (annotated Docs to bytes), `worker` (a chunk through the pipeline, nothing lost), `executors` and
`ray_executor` (where chunks are annotated), `output` (whole records on disk, so that a run can be resumed) and `run` (all of
it together). `suggest` chooses what to annotate next, by `uncertainty`.
"""
