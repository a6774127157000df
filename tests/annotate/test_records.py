"""Chunks of records."""

from spacy_bertner.annotate.records import Record, chunks


def test_chunks_depend_on_the_input_alone():
    records = [Record("a", i, "x" * (i % 7)) for i in range(50)]
    found = list(chunks(iter(records), 5, 12))
    assert [record for chunk in found for record in chunk.records] == records
    assert [chunk.first for chunk in found[1:]] == [chunk.end for chunk in found[:-1]]
    for chunk in found:
        sizes = [len(record.content) for record in chunk.records]
        assert len(sizes) <= 5 and sum(sizes[:-1]) < 12
        assert chunk is found[-1] or len(sizes) == 5 or sum(sizes) >= 12
