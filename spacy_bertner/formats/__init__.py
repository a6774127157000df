"""Annotated files to Docs: `convert` writes DocBins, `conll` reads the CoNLL family.

What all formats share: `source` (inputs, found and read), `faults` (what is wrong with them, and where), `ledger` (what
was read, written, repaired and dropped), `detokenize` (natural spacing).
"""
