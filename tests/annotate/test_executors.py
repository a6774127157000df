"""Several processes against one."""

import pytest

from spacy_bertner.annotate.run import RunSettings, annotate


def test_processes(tmp_path, pipeline, texts_file):
    annotate(pipeline, [texts_file], tmp_path / "one.jsonl", RunSettings(batch_size=3))
    annotate(str(pipeline), [texts_file], tmp_path / "two.jsonl", RunSettings(batch_size=3, n_process=2))
    assert (tmp_path / "two.jsonl").read_bytes() == (tmp_path / "one.jsonl").read_bytes()
    with pytest.raises(OSError, match="E050"):
        annotate("no-such", [texts_file], tmp_path / "three.jsonl", RunSettings(n_process=2))
    assert not (tmp_path / "three.jsonl").exists()
