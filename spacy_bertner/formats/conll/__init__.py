"""The CoNLL family to Docs.

`options` (what the user may set), `layout` (which column is what), `detect` (the layout of a file), `schemes` (what tags
mean, which scheme a file follows), `blocks` (lines to sentences), `scan` (the first pass over a file), `docs` (sentences to
Docs).
"""
