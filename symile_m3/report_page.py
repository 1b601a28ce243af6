"""The page of a report: its figures, plots and queries as HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from symile_m3.gallery import Gallery
from symile_m3.languages import language_name
from symile_m3.pages import assemble
from symile_m3.pages.palette import heat
from symile_m3.pages.tables import Rows, figure_table, scrolling
from symile_m3.pages.words import badge, heat_colours, language_colours
from symile_m3.plan import Plan
from symile_m3.plots import as_svg, plot_colours
from symile_m3.report_cards import gallery_section
from symile_m3.report_plots import Plot
from symile_m3.shown import label_language
from symile_m3.wording import (
    PATTERNS,
    ceilings_of,
    listed,
    objective_of,
    objective_title,
    setting,
    share,
    shown_differences,
    span,
)

_HEAT = 21  # steps of 5%
_HEADED = 3  # names of rows that a heading holds


def report_page(figures: Mapping[str, Any], plan: Plan, gallery: Gallery, plots: Sequence[Plot]) -> str:
    """The whole file.

    Args:
        figures: of `symile_m3.report.make_report`.
        plan: of the dataset.
        gallery: the queries to show.
        plots: of `symile_m3.report_plots.all_plots`.
    """
    codes = plan.lexicon.languages
    styles = {code: f"l{i}" for i, code in enumerate(codes)}
    svgs = {plot.name: as_svg(plot.figure, plot.name, plot.label) for plot in plots if plot.name != "confusion"}
    heading = _heading(list(figures["results"]))
    return assemble(
        "report",
        {
            "title": escape(f"{heading}: test results"),
            "heading": escape(heading),
            "lead": _lead(figures),
            "facts": _facts(figures),
            "results_note": (
                "An image is retrieved for the speech and the text of every test sample, from all images of the split. "
                "It is right when it shows the class of the sample."
            ),
            "results": _results(figures),
            "accuracy_note": "All queries, then those that speak each language, with 95% intervals.",
            "accuracy": svgs["accuracy"],
            "missing": _missing(figures, svgs),
            "confusion_note": _confusion_note(figures),
            "confusion": "\n".join(
                _confusion_table(name, table, styles) for name, table in figures["confusion"].items()
            ),
            "curves": _curves(svgs),
            "gallery": gallery_section(
                gallery,
                list(figures["results"]),
                styles,
                label_language(plan),
                several=any(len(result["runs"]) > 1 for result in figures["results"].values()),
            ),
            "fingerprint": plan.fingerprint,
        },
        style=language_colours(len(codes)) + heat_colours(heat(_HEAT)) + plot_colours(),
    )


def _heading(rows: Sequence[str]) -> str:
    """The names of the rows; where these are many recipes, of their objectives."""
    objectives = list(dict.fromkeys(map(objective_of, rows)))
    if len(rows) <= _HEADED or len(objectives) == len(rows):
        return listed([objective_title(row) for row in rows])
    return f"{listed([objective_title(name) for name in objectives])} by {len(rows)} recipes"


def _lead(figures: Mapping[str, Any]) -> str:
    parts = [
        f"{objective_title(name)} finds a right image for {100 * result['top1']:.1f}% of the queries "
        f"(95% interval {100 * result['ci95'][0]:.1f} to {100 * result['ci95'][1]:.1f})"
        for name, result in figures["results"].items()
    ]
    text_only = figures["bounds"]["text_only"]
    known = "" if text_only is None else f" The text alone is enough for at most {100 * text_only:.1f}% of them."
    return escape("; ".join(parts) + "." + known)


def _facts(figures: Mapping[str, Any]) -> str:
    dataset, results = figures["dataset"], figures["results"]
    facts = (
        ("queries", f"{next(iter(results.values()))['n']:,}"),
        ("candidate images", f"{dataset['test_images']:,}"),
        ("classes", f"{dataset['classes']:,}"),
        ("languages", str(dataset["languages"])),
        ("words a text", str(dataset["words"])),
        ("runs", str(len(figures["runs"]))),
    )
    return "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in facts)


def _results(figures: Mapping[str, Any]) -> str:
    """The table that `eval` prints, and the runs it is of."""
    results, dataset = figures["results"], figures["dataset"]
    rows = []
    for name, result in results.items():
        several = f", {len(result['runs'])} runs" if len(result["runs"]) > 1 else ""
        row = [objective_title(name) + several, share(result["top1"]), span(result["ci95"]), share(result["top5"])]
        rows.append([*row, share(result["mrr"])])
    groups = [Rows(rows=rows, kind="name")]
    differences = []
    shown, others = shown_differences(figures)
    for pair, found in shown.items():
        low, high = found["ci95"]
        label = " − ".join(objective_title(name) for name in pair.split(" - "))
        differences.append([label, f"{found['top1']:+.3f}", f"{low:+.3f} to {high:+.3f}", "", ""])
    if differences:
        groups.append(Rows(rows=differences))
    known = [
        [label, share(figures["bounds"][key]), how, "", ""]
        for key, label, how in (
            ("text_only", "text alone", f"exact, 1/{dataset['words']}"),
            ("audio_only", "audio alone", f"exact, 1/{dataset['classes']}"),
        )
        if figures["bounds"][key] is not None
    ]
    known += [
        [f"{label} of {rows}" if rows else label, share(value), "measured", "", ""]
        for key, label in (("image_ceiling", "image ceiling"), ("language_ceiling", "language ceiling"))
        for rows, value in ceilings_of(figures, key)
    ]
    groups.append(Rows(rows=known, kind="known"))
    notes = [
        "The ceilings are what classifiers of the same features reach: the class from the image, the language from "
        "the clip."
    ]
    if differences:
        notes.append("Differences are on the same queries.")
    if others:
        notes.append(f"Those of other rows than the first, {others}, are written with --json.")
    if "trained_missing_curve" in figures:
        notes.append("Of the runs below, these are the results of those with the least missing in training.")
    notes += _bound(figures)
    table = figure_table("Results", ["top-1", "95% interval", "top-5", "MRR"], groups)
    return f'{table}<p class="hint">{" ".join(notes)}</p>{_recipes(figures)}{_runs(figures)}'


def _bound(figures: Mapping[str, Any]) -> list[str]:
    """The total correlation, where a run bounds it."""
    found = figures.get("total_correlation", {})
    bounds = [
        f"{objective_title(name)} shows at least {found[name]['nats']:.2f}"
        for name in figures["results"]
        if name in found and found[name]["nats"] > 0
    ]
    if not bounds:
        return []
    there = "Of the" if found["exact"] is None else f"Of the {found['exact']:.2f}"
    return [f"{there} nats of total correlation of image, speech and text, {listed(bounds)}."]


def _recipes(figures: Mapping[str, Any]) -> str:
    """In what the recipes differ, in full; nothing where they do not."""
    recipes = figures.get("recipes")
    if not recipes:
        return ""
    keys = dict.fromkeys(key for settings in recipes.values() for key in settings)
    rows = [[key, *(setting(settings.get(key)) for settings in recipes.values())] for key in keys]
    return figure_table("Settings that differ", [objective_title(row) for row in recipes], [Rows(rows=rows)])


def _runs(figures: Mapping[str, Any]) -> str:
    """The runs that the results are of."""
    rows = []
    for run in figures["runs"]:
        steps = run["metrics"][-1].get("step") if run["metrics"] else None
        row = [run["label"], share(run["top1"]), str(run["seed"]), f"{run['missing_p']:g}"]
        rows.append([*row, "-" if steps is None else f"{steps:,}"])
    return figure_table("Runs", ["top-1", "seed", "missing p", "steps"], [Rows(rows=rows)])


def _missing(figures: Mapping[str, Any], svgs: Mapping[str, str]) -> str:
    """Accuracy over p, as plots and as the table of `eval`; nothing where nothing was hidden."""
    records = figures.get("missing_curve") or ([figures["missing"]] if "missing" in figures else [])
    plots = [svg for name, svg in svgs.items() if name.startswith("missing-")]
    if not records and not plots:
        return ""
    names = list(figures["results"])
    charts = [f"<div>{plot}</div>" for plot in plots]
    if not records:
        note = "Each modality was missing in training with probability p; the queries are complete."
        return _section("missing", "Accuracy over p", note, _charts(charts))
    groups = []
    for record in records:
        rows = [[objective_title(name), *(share(record[name].get(key)) for key in PATTERNS)] for name in names]
        exact = ["exact", *(share(record["exact"].get(key)) for key in PATTERNS)]
        groups.append(Rows(heading=f"p = {record['p']:g}", rows=[*rows, exact]))
    table = figure_table("Top-1 by what is left", list(PATTERNS.values()), groups)
    fills: dict[str, list[str]] = {}
    for name in names:
        fills.setdefault(records[0][name]["fill"], []).append(objective_title(name))
    notes = ["Speech and text of each query are hidden with probability p each."]
    notes += [f"In place of what is hidden, {listed(of_fill)}: {fill}." for fill, of_fill in fills.items()]
    beside = len(charts) < 2
    content = _charts([*charts, f"<div>{table}</div>"]) if beside else _charts(charts) + table
    return _section("missing", "Accuracy over p", escape(" ".join(notes)), content)


def _charts(parts: Sequence[str]) -> str:
    """Parts beside each other where there is room."""
    return f'<div class="charts">{"".join(parts)}</div>'


def _confusion_note(figures: Mapping[str, Any]) -> str:
    dataset = figures["dataset"]
    lines = [
        "Of 100 queries that speak the language of a row: how often the image shows what the word in the language of a "
        "column names. In the framed cells that is the target word."
    ]
    if dataset["text"] == "disjoint":
        lines.append(
            f"Who cannot hear which language is spoken takes each of the {dataset['words']} words equally often: "
            f"{100 / dataset['words']:.0f} of 100 in the frame."
        )
    shares = (
        f"{objective_title(name)}: {100 * table['target']:.1f}% the target word, "
        f"{100 * table['distractor']:.1f}% another word, {100 * table['no_word']:.1f}% none"
        for name, table in figures["confusion"].items()
    )
    return escape(f"{' '.join(lines)} {'. '.join(shares)}.")


def _confusion_table(name: str, table: Mapping[str, Any], styles: Mapping[str, str]) -> str:
    *codes, none = table["languages"]
    head = "".join(
        f'<th scope="col" title="{escape(language_name(code))}">{badge(code, styles)}</th>' for code in codes
    )
    rows = []
    for spoken, shares in table["rows"].items():
        cells = []
        for column, value in zip(table["languages"], shares, strict=True):
            own = " own" if column == spoken else ""
            cells.append(f'<td class="h{round(value * (_HEAT - 1))}{own}">{100 * value:.0f}</td>')
        label = f'<span class="hidden">{escape(language_name(spoken))} </span>{badge(spoken, styles)}'
        rows.append(f'<tr><th scope="row">{label}</th>{"".join(cells)}</tr>')
    title = objective_title(name)
    return scrolling(
        f'<table class="heat"><caption>{escape(title)}</caption>'
        f'<thead><tr><td><span class="hidden">spoken</span></td>{head}'
        f'<th scope="col" class="nothing">{none}</th></tr></thead><tbody>{"".join(rows)}</tbody></table>',
        f"Word shown, {title}",
    )


def _curves(svgs: Mapping[str, str]) -> str:
    plots = [f"<div>{svg}</div>" for name, svg in svgs.items() if name.startswith("curve-")]
    if not plots:
        return ""
    return _section(
        "curves",
        "Training",
        "As each run noted it while it trained. The retrieval is that of the validation samples.",
        _charts(plots),
    )


def _section(name: str, title: str, note: str, content: str) -> str:
    return (
        f'<section class="panel" aria-labelledby="{name}-title"><h2 id="{name}-title">{escape(title)}</h2>'
        f'<p class="hint">{note}</p>{content}</section>'
    )
