"""`report.html` in a real browser: it opens, loads nothing, runs no text of the data, its filters work; `report.md`."""

import json
import re

import pytest
import spacy
from spacy.tokens import Doc, DocBin
from spacy.vocab import Vocab

from spacy_bertner.report import Settings, build_report, write_report

from .conftest import docs_of, ruler, save

SCRIPT = "<script>window.hacked = 1</script>"
HOSTILE = [
    SCRIPT,
    '"><img/src=x/onerror=window.hacked=1>',
    "</script><script>window.hacked=1</script>",
    "'onmouseover='window.hacked=1",
    "{{7*7}}{%for%}",
    "&lt;b&gt;&amp;",
    "javascript:window.hacked=1",
    "\u202eRTL\u0000\u2028",
]


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    pytest.importorskip("selenium")
    from . import browser as browsers

    if browsers.find() is None:
        pytest.skip("needs Chromium or Chrome and its ChromeDriver (Debian: apt-get install chromium chromium-driver)")
    with browsers.start(tmp_path_factory.mktemp("browser")) as window:
        yield window


def page_of(folder, nlp, docs, **settings):
    DocBin(docs=docs).to_disk(folder / "data.spacy")
    return write_report(build_report(nlp, folder / "data.spacy", **settings), folder / "out")[0]


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    return page_of(tmp_path_factory.mktemp("report"), ruler(), docs_of(Vocab()), other=ruler({"Maria Kolb": "PER"}))


def open_page(browser, page):
    browser.requests(), browser.messages()
    browser.resize(1200, 900)
    browser.open(page)
    assert browser.messages() == []
    asked = [url for url in browser.requests() if not url.startswith(("chrome:", "data:"))]
    assert asked == [page.as_uri()]


def shown(browser):
    """Kind and labels of the errors that can be seen."""
    return browser.run(
        "return [...document.querySelectorAll('#error-list > li')].filter(li => li.offsetParent)"
        ".map(li => [li.dataset.kind, ...['.label:not(.predicted-label)', '.predicted-label']"
        ".map(s => li.querySelector('.head ' + s)?.textContent ?? '')])"
    )


def choose(browser, name, value):
    """Set a field as a user does."""
    script = """
        const field = document.querySelector(`#filters [name=${arguments[0]}]`);
        if (field.tagName === "SELECT")
            field.value = [...field.options].find(option => option.textContent === arguments[1]).value;
        else field.value = arguments[1];
        field.dispatchEvent(new Event("input", { bubbles: true }));
        return document.getElementById("shown").textContent;
    """
    return browser.run(script, name, value)


def test_filters(browser, page):
    open_page(browser, page)
    everything = shown(browser)
    assert len(everything) > 15
    assert browser.run("return document.getElementById('filters').hidden") is False

    assert choose(browser, "kind", "spurious") == f"1 of {26} errors, 1 different"
    assert shown(browser) == [["spurious", "", "MISC"]]
    browser.run("document.querySelector('#filters button').click()")
    assert browser.run(
        "return new Promise(done => setTimeout(() => done(document.getElementById('shown').textContent), 50))"
    )
    assert shown(browser) == everything

    choose(browser, "gold", "ORG")
    assert shown(browser) == [row for row in everything if row[1] == "ORG"]
    choose(browser, "predicted", "nothing")
    wanted = [row for row in everything if row[1:] == ["ORG", ""]]
    assert shown(browser) == wanted and wanted and {row[0] for row in wanted} == {"missed"}
    choose(browser, "words", "nordBANK")
    assert len(shown(browser)) == 1
    choose(browser, "words", "no such words")
    assert shown(browser) == []
    assert browser.messages() == []


def test_a_cell_of_the_matrix_shows_its_errors(browser, page):
    open_page(browser, page)
    everything = shown(browser)
    cells = browser.run("return [...document.querySelectorAll('.matrix button')].map(b => [b.title, b.textContent])")
    assert len(cells) > 4
    for i, (title, n) in enumerate(cells):
        browser.run("document.querySelectorAll('.matrix button')[arguments[0]].click()", i)
        browser.run("return new Promise(done => setTimeout(done, 20))")  # after the reset
        gold, predicted = re.match(r"Show (.*?) (?:found as (.*)|missed|where there is none)$", title).groups()
        if "none" in title:
            gold, predicted = "", gold
        expected = [row for row in everything if row[1:] == [gold, predicted or ""]]
        assert shown(browser) == expected
        total = browser.run("return document.getElementById('shown').textContent")
        assert total.startswith(f"{n} of ")


@pytest.mark.parametrize("dark", [False, True])
def test_on_a_phone_light_and_dark(dark, browser, page):
    open_page(browser, page)
    browser.resize(390, 844, dark=dark)
    assert browser.run("return [document.documentElement.scrollWidth, innerWidth]") == [390, 390]
    background, text = browser.run(
        "const s = getComputedStyle(document.body); return [s.backgroundColor, s.color].map(c => +c.match(/\\d+/)[0])"
    )
    assert (background < 60 and text > 200) if dark else (background > 200 and text < 60)
    # What scrolls sideways can be reached with the keyboard, and has a name
    loose = browser.run(
        "return [...document.querySelectorAll('.scroll')]"
        ".filter(e => e.tabIndex !== 0 || !e.getAttribute('aria-label')).length"
    )
    assert loose == 0


def test_tables_and_fields_are_labelled(browser, page):
    open_page(browser, page)
    assert browser.run("return [...document.querySelectorAll('tbody tr')].every(tr => tr.querySelector('th, td'))")
    missing = browser.run(
        "return [...document.querySelectorAll('select, input, img')]"
        ".filter(e => !(e.labels?.length || e.getAttribute('aria-label') || e.alt)).length"
    )
    assert missing == 0
    assert browser.run("return [...document.querySelectorAll('th')].every(th => th.scope)")
    ids = browser.run("return [...document.querySelectorAll('[id]')].map(e => e.id)")
    assert len(ids) == len(set(ids))
    targets = browser.run("return [...document.querySelectorAll('nav a')].map(a => a.hash.slice(1))")
    assert set(targets) <= set(ids) and len(targets) == 9


def test_hostile_text_is_shown_and_not_run(browser, tmp_path):
    """In words, labels and names of files; missed, found with a wrong label, inconsistent, misaligned."""
    folder = tmp_path / "<img src=x onerror=alert(1)>"
    folder.mkdir()
    nlp = spacy.blank("en")
    labels = [f"L<b>{i}</b>\"'&" for i in range(3)]
    docs = []
    for i, text in enumerate(HOSTILE):
        for label in labels[: 1 + i % 2]:
            docs.append(Doc(nlp.vocab, words=[text, "and", "Oslo"], ents=[f"B-{label}", "O", f"B-{labels[2]}"]))
    ruled = nlp.add_pipe("entity_ruler")
    ruled.add_patterns([{"label": labels[1], "pattern": [{"ORTH": text}]} for text in HOSTILE[::2]])
    page = page_of(folder, nlp, docs, other=ruler({"Oslo": labels[2]}))
    open_page(browser, page)
    assert browser.run("return window.hacked ?? null") is None
    assert browser.run("return document.querySelectorAll('script').length") == 1
    assert browser.run("return document.querySelectorAll('img').length") == 0
    text = browser.run("return document.getElementById('error-list').textContent")
    for hostile in HOSTILE[:-1]:
        assert hostile in text
    assert labels[1] in text and "RTL" in text
    # Nor would a script run that got in
    browser.run(
        "document.body.append(Object.assign(document.createElement('script'), {textContent: 'window.hacked = 1'}))"
    )
    assert browser.run("return window.hacked ?? null") is None
    choose(browser, "gold", labels[2])
    assert {row[1] for row in shown(browser)} == {labels[2]}


def test_without_script_all_is_there(page):
    text = page.read_text(encoding="utf8")
    assert '<form id="filters" hidden' in text and "<li data-kind" in text
    for forbidden in ("http://", "https://", "//cdn", "@import", "url("):
        assert forbidden not in text


def test_markdown_holds_any_text(tmp_path):
    nlp = ruler({"Oslo": "LOC"})
    words = ["a|b", "<b>*x*", "`$1_[y](z)\n#"]
    doc = Doc(nlp.vocab, words=[*words, "Oslo"], ents=["B-LOC", "B-LOC", "B-LOC", "B-LOC"])
    path = write_report(build_report(nlp, save(tmp_path / "data.spacy", [doc])), tmp_path / "out")[2]
    text = path.read_text(encoding="utf8")
    (listed,) = re.findall(r"^- 1 x missed: \*\*LOC\*\* (a.*) → nothing$", text, re.MULTILINE)
    assert listed == r"a\|b"
    assert r"\<b\>\*x\*" in text and r"\`$1\_\[y\]\(z\) \#" in text
    tables = re.findall(r"(?:^\|.*\|\n)+", text, re.MULTILINE)
    for table in tables:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1


def test_errors_that_are_not_listed_are_counted(data, tmp_path):
    report = build_report(ruler(), data, settings=Settings(max_errors=3))
    files = write_report(report, tmp_path / "out")
    page = files[0].read_text(encoding="utf8")
    assert page.count("<li data-kind") == 3
    assert f"{len(report['errors']['groups']) - 3} different errors" in page
    assert len(json.loads(files[1].read_text(encoding="utf8"))["errors"]["groups"]) > 3


def test_text_is_shown_in_its_own_direction(browser, tmp_path, nlp):
    """Arabic and Hebrew sentences from right to left, English ones and the label before them from left to right."""
    sentences = [["ولد", "أحمد", "في", "القاهرة"], ["דוד", "גר", "בחיפה"], ["Kolb", "left", "Oslo"]]
    docs = [Doc(nlp.vocab, words=words, ents=["O"] * (len(words) - 1) + ["B-LOC"]) for words in sentences]
    open_page(browser, page_of(tmp_path, spacy.blank("xx"), docs))
    directions = browser.run(
        "return [...document.querySelectorAll('#error-list blockquote')].map(e => getComputedStyle(e).direction)"
    )
    assert directions == ["rtl", "rtl", "ltr"]
    # The label is on the left of the entity, whatever its script
    assert browser.run(
        "const left = e => e.getBoundingClientRect().left;"
        "return [...document.querySelectorAll('#error-list .label')].every(e => left(e) < left(e.nextElementSibling))"
    )


@pytest.mark.parametrize("width", [400, 900, 1300])
def test_bars_have_room(width, browser, tmp_path):
    data = docs_of(Vocab())
    page = page_of(tmp_path, ruler(), data, train=save(tmp_path / "train.spacy", data))
    open_page(browser, page)
    browser.resize(width, 900)
    visible = browser.run(
        "return [...document.querySelectorAll('.meter span')].map(e => Math.min(e.getBoundingClientRect().right, "
        "e.closest('.scroll').getBoundingClientRect().right) - e.getBoundingClientRect().left)"
    )
    assert len(visible) > 10
    assert set(visible) == {0} if width == 400 else min(visible) >= 80  # phones have no room for them
