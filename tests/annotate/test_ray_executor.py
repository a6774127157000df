"""Ray against one process."""

import os
import signal

import pytest
from spacy.language import Language

from spacy_bertner.annotate.run import RunSettings, annotate
from spacy_bertner.annotate.worker import Pipeline


@pytest.fixture(scope="module")
def cluster():
    """Two workers' worth of Ray on this machine."""
    ray = pytest.importorskip("ray")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield ray
    ray.shutdown()


def test_ray(tmp_path, pipeline, texts_file, cluster):
    annotate(pipeline, [texts_file], tmp_path / "local.jsonl", RunSettings(batch_size=3))
    annotate(pipeline, [texts_file], tmp_path / "ray.jsonl", RunSettings(batch_size=3, engine="ray"))
    assert (tmp_path / "ray.jsonl").read_bytes() == (tmp_path / "local.jsonl").read_bytes()
    with pytest.raises(OSError, match="E050"):
        annotate("no-such", [texts_file], tmp_path / "none.jsonl", RunSettings(engine="ray"))
    with pytest.raises(ValueError, match="--gpus-per-worker: 2 workers of 1000 GPU are more than"):
        annotate(pipeline, [texts_file], tmp_path / "none.jsonl", RunSettings(engine="ray", gpus_per_worker=1000))


CODE = """
import os, signal
from pathlib import Path
from spacy.language import Language

@Language.component("dies_once")
def dies_once(doc):
    marker = Path({marker!r})
    if doc.text.startswith("Turku") and not marker.exists():
        marker.write_text(str(os.getpid()))
        os.kill(os.getpid(), signal.SIGKILL)
    return doc
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_ray_worker_killed(tmp_path, ner, texts_file, cluster):
    code, marker = tmp_path / "code.py", tmp_path / "died"
    code.write_text(CODE.format(marker=str(marker)), encoding="utf8")
    Language.component("dies_once", func=lambda doc: doc)
    ner.add_pipe("dies_once", first=True)
    ner.to_disk(tmp_path / "pipeline")
    settings = RunSettings(batch_size=3, engine="ray")
    annotate(ner, [texts_file], tmp_path / "local.jsonl", RunSettings(batch_size=3))
    loaded = Pipeline(str(tmp_path / "pipeline"), code=str(code))
    annotate(loaded, [texts_file], tmp_path / "ray.jsonl", settings)
    assert marker.exists()
    assert (tmp_path / "ray.jsonl").read_bytes() == (tmp_path / "local.jsonl").read_bytes()
