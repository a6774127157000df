"""The CoNLL family to Docs.

`options` (what the user may set), `layout` (which column is what), `sample` (the first lines of a file), `detect` (their
layout), `choose` (columns that nothing names), `schemes` (what tags mean, which scheme a file follows), `stateful` (tags
that depend on the line before), `blocks` (lines to sentences), `scan` (the first pass over a file), `docs` (sentences to
Docs).
"""
