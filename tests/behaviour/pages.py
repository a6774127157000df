"""The code blocks of README.md and docs/."""

import re
import shlex
from typing import NamedTuple

from thinc.api import Config

from ..conftest import ROOT

PATHS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf8") for path in PATHS}


class Block(NamedTuple):
    """A code block of a page; `mark` is the reason why it is not run, or empty."""

    page: str
    mark: str
    language: str
    text: str


BLOCKS = [
    Block(page, *match)
    for page, text in PAGES.items()
    for match in re.findall(r"(?ms)^(?:<!-- not run: ([^\n]*) -->\n)?```(\w*)\n(.*?)^```$", text)
]


def find(page: str, containing: str) -> str:
    """The one block of a page that contains a text."""
    (text,) = [block.text for block in BLOCKS if block.page == page and containing in block.text]
    return text


def commands(text: str) -> list[list[str]]:
    """The arguments of each command of a shell block."""
    return [shlex.split(line, comments=True) for line in text.replace("\\\n", " ").splitlines() if line.strip()]


def parse_ini(text: str) -> Config:
    """Read part of a config, with the sections above it."""
    sections = re.findall(r"(?m)^\[([\w.]+)\]", text)
    for name in [*sections]:
        parents = [".".join(name.split(".")[:i]) for i in range(1, name.count(".") + 1)]
        missing = "".join(f"[{parent}]\n" for parent in parents if parent not in sections)
        sections += parents
        text = text.replace(f"[{name}]\n", f"{missing}[{name}]\n", 1)
    return Config().from_str(text)
