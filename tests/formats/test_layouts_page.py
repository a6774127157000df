"""Every example of docs/layouts.md is read as the page says."""

import re
import shlex
from pathlib import Path

import pytest

from .helpers import from_bin, run

PAGE = (Path(__file__).parents[2] / "docs" / "layouts.md").read_text(encoding="utf-8")
EXAMPLE = re.compile(r"### ([^\n]+)\n\n```text\n(.*?)\n```\n\nOptions: (none|`[^\n]+`) → ([^\n]+)\n", re.DOTALL)
EXAMPLES = {title: rest for title, *rest in EXAMPLE.findall(PAGE)}


def test_the_page_is_understood():
    assert len(EXAMPLES) == PAGE.count("\n### ") >= 30


@pytest.mark.parametrize("title", EXAMPLES)
def test_example(title, tmp_path):
    text, options, gives = EXAMPLES[title]
    path = tmp_path / "a.conll"
    path.write_text(text + "\n", encoding="utf-8")
    result = run(path, tmp_path, *shlex.split(options.strip("`").removeprefix("none")))
    assert result.exit_code == 0, result.stderr
    docs = from_bin(tmp_path / "a.spacy")
    assert [f"`{ent.text}` {ent.label_}" for doc in docs for ent in doc.ents] == gives.split(", ")
    assert [token.text for token in docs[0]][:2] == ["Ayla", "Okri"]
    if "go to `token.tag_`" in PAGE.partition(title)[2][:400]:
        assert docs[0][0].tag_
