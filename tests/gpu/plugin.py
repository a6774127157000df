"""A pytest plugin that runs tests on the stand-in for a GPU: `python -m pytest -p tests.gpu.plugin tests/…`."""

from tests.gpu.standin import load

load.load()  # before anything imports torch

from collections.abc import Iterator

import cupy
import pytest
import spacy


@pytest.fixture(autouse=True)
def on_the_gpu() -> Iterator[None]:
    spacy.require_gpu(0)
    yield
    cupy.cuda.set_allocator()  # `spacy train` may have set one, for the whole process


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("cpu_only"):
            item.add_marker(pytest.mark.skip(reason="several processes cannot share what is on a GPU"))
