"""A pytest plugin that runs every test on the stand-in for a GPU: `python -m pytest -p tests.gpu.plugin tests/…`."""

from tests.gpu.standin import load

load.load()

import pytest
import spacy


@pytest.fixture(autouse=True)
def on_the_gpu() -> None:
    spacy.require_gpu(0)
