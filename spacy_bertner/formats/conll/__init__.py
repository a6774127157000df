"""Reading CoNLL files and their relatives.

One concept a file: `options` (what the user may set), `source` (bytes to lines), `layout` (which
column is what), `schemes` (tags to entities), `reader` (lines to blocks of tokens), `docs` (blocks
to Docs), `detokenize` (natural spacing), `faults` (what is wrong, and where) and `ledger` (what was
read, kept, mended and dropped). `spacy_bertner.convert` puts them together.
"""
