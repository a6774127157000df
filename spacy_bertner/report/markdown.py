"""`report.md`: the figures in Markdown, for a terminal, a merge request or a model card."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .html import KIND_NAMES, LOST_NAMES, best_threshold, percent, points

N_ERRORS = 20
N_INCONSISTENT = 20
AVERAGES = ("micro", "macro", "weighted")


def escape(text: str) -> str:
    """Make any text one line of Markdown that shows it as it is."""
    line = " ".join(text.split())
    return re.sub(r"([\\`*_{}\[\]<>()#+!|~&-])", r"\\\1", line)


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a table, the first column to the left and the others to the right."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return [f"| {' | '.join(line)} |" for line in lines] + [""]


def make_markdown(report: Mapping[str, Any], pictures: Sequence[str] = ()) -> str:
    """Make the Markdown of a report.

    report: what `build_report` returned. pictures: names of the plots beside it.
    """
    counts, micro = report["counts"], report["entities"]["micro"]
    lines = [
        "# Entity report",
        "",
        f"{escape(report['pipeline'])} on {escape(report['data'])}: F1 **{percent(micro['f1'])}**, "
        f"precision {percent(micro['precision'])}, recall {percent(micro['recall'])}; {counts['gold']} gold entities, "
        f"{counts['predicted']} predicted, {counts['documents']} documents, {counts['tokens']} tokens.",
        "",
        *[f"**Note:** {escape(warning)}\n" for warning in report["warnings"]],
        "## By label",
        "",
        *_scores("label", report["entities"]["labels"], report["entities"]),
        "## By other measures",
        "",
        *table(
            ["counts as found", "P", "R", "F1", "correct", "incorrect", "partial", "missed", "spurious"],
            (
                [f"{KIND_NAMES[kind]} ({kind})", *_prf(row := kind_rows["micro"])]
                + [str(row[name]) for name in ("correct", "incorrect", "partial", "missed", "spurious")]
                for kind, kind_rows in report["kinds"].items()
            ),
        ),
    ]
    if report["comparison"] is not None:
        lines += _comparison(report["comparison"])
    lines += ["## Confusion of labels", "", *_confusion(report["confusion"])]
    lines += ["## Errors", ""]
    lines += [", ".join(f"{kind}: {n}" for kind, n in report["errors"]["kinds"].items()) + ".", ""]
    for group in report["errors"]["groups"][:N_ERRORS]:
        sides = [_entity(group[name]) for name in ("gold", "predicted")]
        lines.append(f"- {group['count']} x {group['kind']}: {sides[0]} → {sides[1]}")
    if (n := len(report["errors"]["groups"])) > N_ERRORS:
        lines.append(f"- … and {n - N_ERRORS} other errors, all of them in report.json")
    lines.append("")
    for title, first, key in (
        ("By length in tokens", "tokens", "by_length"),
        ("By place in the document", "from token", "by_position"),
        ("By what training has seen", "words and label", "by_seen"),
    ):
        lines += [f"## {title}", ""]
        if report[key] is None:
            lines += ["Not told: the training data was not given.", ""]
        else:
            lines += _scores(first, {row["name"]: row for row in report[key]})
    lines += ["## How sure it is", "", *_confidence(report)]
    lines += ["## By token", ""]
    if report["tokens"] is None:
        lines += ["No table of tags: entities overlap.", ""]
    else:
        lines += _scores("tag", report["tokens"]["tags"], report["tokens"])
        lines += ["Without O:", "", *_scores("tags", {}, report["tokens"]["entity_tags"])]
    lines += ["## Annotation that looks inconsistent", ""]
    for row in report["inconsistent"][:N_INCONSISTENT]:
        labels = [f"{escape(label)} {n}" for label, n in row["labels"].items()]
        labels += [f"not at all {row['unmarked']}"] if row["unmarked"] else []
        lines.append(f"- {escape(row['text'])}: {', '.join(labels)}")
    if (n := len(report["inconsistent"])) > N_INCONSISTENT:
        lines.append(f"- … and {n - N_INCONSISTENT} more, all of them in report.json")
    lines += ["" if report["inconsistent"] else "None found.\n", "## Lost on the way", ""]
    for name, title in LOST_NAMES.items():
        lost = report["lost"][name]
        if lost is not None:
            lines.append(f"- {title}: {lost['total']}")
            lines += [
                f"    - {_place(item)}: {escape(item['text'])}: {escape(item['reason'])}"
                for item in lost["examples"][:5]
            ]
            if lost["total"] > 5:
                lines.append("    - …")
    lines.append("")
    if pictures:
        lines += [*(f"![{name.removesuffix('.png')}]({name})" for name in pictures), ""]
    else:
        lines += ['No plots: matplotlib is not installed (`pip install "spacy-bertner[plot]"`).', ""]
    return "\n".join(lines)


def _prf(row: Mapping[str, Any]) -> list[str]:
    return [percent(row[name]) for name in ("precision", "recall", "f1")]


def _scores(first: str, rows: Mapping[str, Any], averages: Mapping[str, Any] | None = None) -> list[str]:
    lines = [[escape(name), *_prf(row), str(row["support"])] for name, row in rows.items()]
    if averages is not None:
        lines += [[f"*{name}*", *_prf(averages[name]), str(averages[name]["support"])] for name in AVERAGES]
    return table([first, "P", "R", "F1", "support"], lines)


def _entity(entity: Mapping[str, Any] | None) -> str:
    return "nothing" if entity is None else f"**{escape(entity['label'])}** {escape(entity['text'])}"


def _confusion(confusion: Mapping[str, Any]) -> list[str]:
    labels = [escape(label) for label in confusion["labels"]]
    rows = [
        [label, *map(str, row), str(missed)]
        for label, row, missed in zip(labels, confusion["matrix"], confusion["missed"], strict=True)
    ]
    rows.append(["*spurious*", *map(str, confusion["spurious"]), ""])
    return table(["gold, found as", *labels, "*missed*"], rows)


def _confidence(report: Mapping[str, Any]) -> list[str]:
    found, best = report["confidence"], best_threshold(dict(report))
    if found is None or best is None:
        return ["The pipeline gives its entities no scores.", ""]
    return [
        f"Expected calibration error {percent(found['ece'])} % over {found['scored']} predictions. F1 is highest, "
        f"{percent(best['f1'])}, at a threshold of {best['threshold']}.",
        "",
        *table(
            ["score", "predictions", "mean score", "right"],
            (
                [f"{row['low']:.2f} to {row['high']:.2f}", str(row["count"])]
                + [percent(row[name]) for name in ("confidence", "accuracy")]
                for row in found["bins"]
            ),
        ),
    ]


def _comparison(found: Mapping[str, Any]) -> list[str]:
    boot = found["bootstrap"]
    first, second = found["entities"]
    return [
        "## Comparison",
        "",
        f"First {escape(found['pipelines'][0])}, second {escape(found['pipelines'][1])}: difference in F1 "
        f"{points(boot['difference'])} points, 95 % interval {points(boot['low'])} to {points(boot['high'])}, "
        f"p = {boot['p']:.3f} (paired bootstrap over {boot['n_documents']} documents, {boot['n_resamples']} samples).",
        "",
        *table(
            ["", "P", "R", "F1"],
            ([name, *_prf(side["micro"])] for name, side in (("first", first), ("second", second))),
        ),
    ]


def _place(item: Mapping[str, Any]) -> str:
    return escape(item["place"]) if "place" in item else f"document {item['document']}"
