"""Every code block of README.md and docs/ parses, with options and settings that exist; links lead somewhere."""

import inspect
import io
import re

import pytest
import spacy
import srsly
import typer.main
from spacy.cli._util import app

import spacy_bertner.cli  # noqa: F401 (adds its commands to the app)
from spacy_bertner.convert import read_conll

from ..conftest import ROOT
from .pages import BLOCKS, PAGES, commands, parse_ini


def check_spacy_command(arguments: list[str]) -> None:
    """Check a command of spaCy: its options, its positional arguments, and the settings that it overrides."""
    command = typer.main.get_command(app)
    while hasattr(command, "commands"):
        command = command.commands[arguments.pop(0)]
    context = command.context_class(command, **command.context_settings)
    values, rest, _ = command.make_parser(context).parse_args(arguments)  # raises for unknown options
    assert all(
        values.get(param.name) for param in command.params if param.param_type_name == "argument" and param.required
    )
    assert not rest or context.allow_extra_args
    config = (ROOT / "configs" / "demo.cfg").read_text(encoding="utf8")  # some blocks are there as comments
    for option in rest:
        section, _, key = option.removeprefix("--").rpartition(".")
        if option.startswith("--vars."):
            assert key in srsly.read_yaml(ROOT / "project.yml")["vars"]
        elif option.startswith("--"):
            assert re.search(rf"(?ms)^[# ]*\[{re.escape(section)}\]$.*?^[# ]*{key} = ", config), option


def check_command(arguments: list[str]) -> None:
    while re.fullmatch(r"\w+=.*", arguments[0]):  # variables of the environment
        arguments = arguments[1:]
    if arguments[:3] == ["python", "-m", "spacy"]:
        check_spacy_command(arguments[3:])
    elif arguments[:2] == ["python", "-c"]:
        compile(arguments[2], "-c", "exec")
    elif arguments[0] == "python":
        assert arguments[1:3] == ["-m", "venv"] or (ROOT / arguments[1]).exists()
    elif arguments[:2] == ["pip", "install"]:
        pyproject = (ROOT / "pyproject.toml").read_text(encoding="utf8")
        for extras in re.findall(r"(?:^|\s)(?:\.|spacy-bertner)\[(.*?)\]", " ".join(arguments)):
            assert all(f"\n{extra} = [" in pyproject for extra in extras.split(","))
        pinned = (ROOT / "constraints.txt").read_text(encoding="utf8").splitlines()
        assert {argument for argument in arguments if "==" in argument} <= set(pinned)
    else:
        assert arguments[0] in ("mkdir", "source")


def check_registered(section: dict) -> None:
    """Check that the functions a config names are registered and have the parameters that it sets."""
    settings = dict(section)
    for key in section:
        if key.startswith("@"):
            name = settings.pop(key)
            if name.startswith("spacy-transformers"):
                pytest.importorskip("spacy_transformers")
            inspect.signature(spacy.registry.get(key[1:], name)).bind_partial(**settings)
        elif isinstance(section[key], dict):
            check_registered(section[key])
    if "factory" in section:
        known = spacy.blank("en").get_factory_meta(settings.pop("factory")).default_config
        assert set(settings) <= set(known)


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: f"{block.page}-{block.text.strip().splitlines()[-1][:40]}")
def test_blocks_parse(block):
    if block.language == "python":
        compile(block.text, block.page, "exec")
    elif block.language == "ini":
        check_registered(parse_ini(block.text))
    elif block.language == "conll":
        assert [doc.ents for doc in read_conll(io.BytesIO(block.text.encode()))]
    elif block.language == "text":
        assert block.page == "docs/layouts.md"  # read by tests/formats/test_layouts_page.py
    else:
        assert block.language in ("", "bash")
        for arguments in commands(block.text):
            check_command(arguments)


def test_every_block_is_known():
    assert sum(len(re.findall(r"(?m)^```", text)) for text in PAGES.values()) == 2 * len(BLOCKS)


def anchors(text: str) -> set[str]:
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in re.findall(r"(?m)^#+ (.*)$", text)}


@pytest.mark.parametrize("page", PAGES)
def test_links(page):
    if not (ROOT / "CONTRIBUTING.md").exists():
        pytest.skip("needs the whole repository")
    for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", PAGES[page]):
        path, _, anchor = target.partition("#")
        path = (ROOT / page).parent / path if path else ROOT / page
        assert path.exists(), target
        assert not anchor or anchor in anchors(path.read_text(encoding="utf8"))
