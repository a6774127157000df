"""These tests need the stand-in: `make test-gpu`, or `python -m pytest -p tests.gpu.plugin tests/gpu`."""

import sys

collect_ignore_glob = [] if "faketorch" in sys.modules else ["test_*.py"]
