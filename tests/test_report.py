"""The report: its figures are those of `eval`, and the page and its plots show them."""

from __future__ import annotations

import io
import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from html_page import Page
from PIL import Image

from symile_m3.errors import NotBuiltError, TrainingError, UsageError
from symile_m3.evaluate import evaluate
from symile_m3.gallery import Gallery
from symile_m3.objectives import OBJECTIVES
from symile_m3.plan import load_plan
from symile_m3.plots import COLOURS, DARK_COLOURS, as_png, plot_colours
from symile_m3.progress import NoProgress
from symile_m3.report import Report, make_report, page_path
from symile_m3.report_page import report_page
from symile_m3.report_plots import all_plots
from symile_m3.shards import DatasetLayout, DatasetReader, decode_json
from symile_m3.wording import objective_title

MISSING = (0.0, 0.5)


@pytest.fixture(scope="module")
def report(hostile_runs: tuple[Path, list[Path]], tmp_path_factory: pytest.TempPathFactory) -> Report:
    data, runs = hostile_runs
    return make_report(data, runs, tmp_path_factory.mktemp("report"), missing_p=MISSING, gallery=10, bootstrap=100)


@pytest.fixture(scope="module")
def page(report: Report) -> Page:
    return Page(report.page.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def records(hostile_runs: tuple[Path, list[Path]]) -> dict[str, dict[str, Any]]:
    reader = DatasetReader(hostile_runs[0], "test")
    return {reader.key(i): decode_json(reader.read(i, ("json",))["json"]) for i in range(len(reader))}


# ---- figures


def test_figures_are_those_of_eval(report: Report, hostile_runs: tuple[Path, list[Path]]) -> None:
    data, runs = hostile_runs
    evaluated = evaluate(data, runs, missing_p=MISSING, bootstrap=100, bound=True)
    assert {name: report.figures[name] for name in evaluated} == evaluated
    assert json.loads(json.dumps(report.figures, allow_nan=False)) == report.figures


def test_runs_are_told_apart_and_have_what_they_noted(report: Report, hostile_runs: tuple[Path, list[Path]]) -> None:
    runs = report.figures["runs"]
    assert [run["label"] for run in runs] == [
        f"{name}, p {p}" for name in ("Symile", "CLIP") for p in ("0, seed 0", "0, seed 1", "0.5, seed 0")
    ]
    for run in runs:
        lines = (Path(run["directory"]) / "metrics.jsonl").read_text().splitlines()
        assert run["metrics"] == [json.loads(line) for line in lines]
        assert [record["step"] for record in run["metrics"]] == [4, 8]
    of_results = {run["directory"]: run["top1"] for r in report.figures["results"].values() for run in r["runs"]}
    assert len(of_results) == 4
    assert {run["directory"]: run["top1"] for run in runs if not run["missing_p"]} == of_results


def test_confusion_adds_up_and_its_frame_is_the_accuracy(report: Report, records: dict[str, dict[str, Any]]) -> None:
    spoken = Counter(record["lang"] for record in records.values())
    for name, table in report.figures["confusion"].items():
        assert table["languages"] == ["ar", "en", "he", "no word"]
        assert table["n"] == {code: spoken[code] for code in table["rows"]}
        for shares in table["rows"].values():
            assert sum(shares) == pytest.approx(1)
        assert table["target"] == pytest.approx(report.figures["results"][name]["top1"])
        assert table["target"] + table["distractor"] + table["no_word"] == pytest.approx(1)
        for code, share in report.figures["results"][name]["by_language"].items():
            assert table["rows"][code][table["languages"].index(code)] == pytest.approx(share)


def test_answers_of_the_gallery_are_what_they_are_said_to_be(
    report: Report, hostile_runs: tuple[Path, list[Path]], records: dict[str, dict[str, Any]]
) -> None:
    gallery = report.figures["gallery"]
    keys = load_plan(DatasetLayout(hostile_runs[0]).plan).lexicon.class_keys
    assert len({query["key"] for query in gallery["queries"]}) == 10
    for query in gallery["queries"]:
        record = records[query["key"]]
        assert (query["class_key"], query["lang"]) == (record["class_key"], record["lang"])
        for name in ("symile", "clip"):
            answer = query[name]
            assert answer["right"] == (answer["class_key"] == record["class_key"]) == (answer["rank"] == 1)
            named = dict(zip(record["word_class_ids"], record["word_langs"], strict=True))
            assert answer["word_lang"] == named.get(keys.index(answer["class_key"]))
    shown = Counter(tuple(n for n in ("symile", "clip") if query[n]["right"]) for query in gallery["queries"])
    for outcome in gallery["outcomes"]:
        assert shown[tuple(outcome["right"])] <= outcome["queries"]
    assert sum(outcome["queries"] for outcome in gallery["outcomes"]) == len(records)


def test_page_is_a_function_of_its_arguments(
    report: Report, hostile_runs: tuple[Path, list[Path]], tmp_path: Path
) -> None:
    data, runs = hostile_runs
    again = make_report(data, runs, tmp_path / "again.html", missing_p=MISSING, gallery=10, bootstrap=100)
    assert again.page.read_bytes() == report.page.read_bytes()
    assert [path.read_bytes() for path in again.plots] == [path.read_bytes() for path in report.plots]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        ["again.html", *(path.name.replace("report-", "again-") for path in report.plots)]
    )


# ---- page


def test_tables_hold_the_figures(report: Report, page: Page) -> None:
    tables = {table.find("hidden")[0].text: table.text for table in page.of_class("figures")}
    assert list(tables) == ["Results", "Runs", "Top-1 by what is left"]
    for result in report.figures["results"].values():
        assert f"{result['top1']:.3f}" in tables["Results"]
        assert f"{result['mrr']:.3f}" in tables["Results"]
    assert "exact, 1/2" in tables["Results"]
    for record in report.figures["missing_curve"]:
        assert f"p = {record['p']:g}" in tables["Top-1 by what is left"]
        assert f"{record['symile']['overall']:.3f}" in tables["Top-1 by what is left"]


def test_heat_has_a_cell_for_every_share(report: Report, page: Page) -> None:
    tables = page.of_class("heat")
    assert len(tables) == 2
    for table, figures in zip(tables, report.figures["confusion"].values(), strict=True):
        cells = [e for e in table.within if e.tag == "td" and e.attributes.get("class", "").startswith("h")]
        assert [cell.text for cell in cells] == [f"{100 * s:.0f}" for row in figures["rows"].values() for s in row]
        assert len(table.find("own")) == len(figures["rows"])


def test_plots_are_on_the_page_in_words_too_and_beside_it(report: Report, page: Page) -> None:
    plots = page.of_class("plot")
    names = [path.stem.removeprefix("report-") for path in report.plots]
    assert names == [
        "curve-loss",
        "curve-val-top1",
        "curve-bound-nats",
        "accuracy",
        "missing-1",
        "missing-2",
        "confusion",
    ]
    assert len(plots) == len(names) - 1  # the confusion is a table there
    assert sum(plot.attributes["aria-label"].startswith("Training: ln(B - 1) - loss (nats) ") for plot in plots) == 1
    assert all(len(plot.attributes["aria-label"]) > 30 and plot.attributes["role"] == "img" for plot in plots)
    ids = [element.attributes["id"] for element in page.elements if "id" in element.attributes]
    assert len(set(ids)) == len(ids)
    for path in report.plots:
        with Image.open(path) as image:
            assert min(image.size) > 200
            assert np.ptp(np.asarray(image.convert("L"))) > 200


def test_all_objectives_have_colours_that_stand_out_on_light_and_dark() -> None:
    style = plot_colours()
    for colours, card in ((COLOURS, "#ffffff"), (DARK_COLOURS, "#1c1e22")):
        assert list(colours) == list(OBJECTIVES)
        assert len(set(colours.values())) == len(OBJECTIVES)
        for name, colour in colours.items():
            assert contrast(colour, card) >= 4.2
            assert f"--{name}:{colour};" in style
            assert f".stroke-{name}{{stroke:var(--{name})}}" in style


def contrast(one: str, other: str) -> float:
    """WCAG's ratio of two colours."""
    lights = []
    for colour in (one, other):
        channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        lights.append(0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2])
    return (max(lights) + 0.05) / (min(lights) + 0.05)


def test_a_page_of_all_objectives(report: Report, hostile_runs: tuple[Path, list[Path]]) -> None:
    figures = json.loads(json.dumps(report.figures))
    for key in ("results", "confusion", "trained_missing_curve"):
        figures[key] = dict.fromkeys(OBJECTIVES, figures[key]["symile"])
    figures["runs"] = [{**figures["runs"][0], "objective": name, "label": name} for name in OBJECTIVES]
    for record in figures["missing_curve"]:
        record.update(dict.fromkeys(OBJECTIVES, record["symile"]))
    plots = all_plots(figures)
    for plot in plots:
        assert plot.figure.get_figwidth() <= 14
        with Image.open(io.BytesIO(as_png(plot.figure))) as image:
            assert np.ptp(np.asarray(image.convert("L"))) > 200
    gallery = Gallery(queries=(), outcomes={})
    html = report_page(figures, load_plan(DatasetLayout(hostile_runs[0]).plan), gallery, plots)
    for name in OBJECTIVES:
        assert f'class="fill-{name}' in html
        assert f"stroke-{name}" in html
        assert html.count(objective_title(name)) > 5


def test_only_ways_that_are_on_the_page_can_be_chosen(report: Report, page: Page) -> None:
    outcomes = {card.attributes["data-outcome"] for card in page.of_class("card")}
    assert {button.attributes["data-outcome"] for button in page.of_class("outcome")} == outcomes


def test_cards_show_every_answer(report: Report, page: Page) -> None:
    cards = page.of_class("card")
    assert [card.attributes["id"] for card in cards] == [q["key"] for q in report.figures["gallery"]["queries"]]
    for card, query in zip(cards, report.figures["gallery"]["queries"], strict=True):
        answers = card.find("answer")
        verdicts = [answer.find("verdict")[0].text for answer in answers]
        assert verdicts == ["✓ right" if query[name]["right"] else "✗ wrong" for name in ("symile", "clip")]
        images = [element for element in card.within if element.tag == "img"]
        assert len(images) == 3
        assert all(
            image.attributes["alt"] and image.attributes["src"].startswith("data:image/jpeg") for image in images
        )
        words = [
            element for element in card.within if element.tag == "bdi" and element.attributes["lang"] in ("ar", "he")
        ]
        assert all(word.attributes["dir"] == "rtl" for word in words)
        assert len(card.find("target")) == 1
        assert len([e for e in card.within if e.tag == "audio"]) == 1


def test_names_that_are_html_are_text(page: Page) -> None:
    assert all(element.text in ("target",) for element in page.all("b"))
    assert [script.attributes for script in page.all("script")] == [{}]
    sources = [e.attributes[key] for e in page.elements for key in ("src", "href") if key in e.attributes]
    assert [source[:40] for source in sources if not source.startswith(("data:", "#"))] == []


# ---- what goes wrong


class Said(NoProgress):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


def test_damaged_metrics_are_said_and_left_out(hostile_runs: tuple[Path, list[Path]], tmp_path: Path) -> None:
    """And a page without curve over p and without gallery is one."""
    data, runs = hostile_runs
    copy = shutil.copytree(runs[0], tmp_path / "runs")
    (copy / "clip" / "metrics.jsonl").write_text("{")
    said = Said()
    made = make_report(data, copy, tmp_path / "out", missing_p=(), gallery=0, bootstrap=10, progress=said)
    assert [len(run["metrics"]) for run in made.figures["runs"]] == [2, 0]
    assert len(said.lines) == 1
    assert "metrics.jsonl: unreadable" in said.lines[0]
    page = Page(made.page.read_text(encoding="utf-8"))
    assert page.of_class("card") == page.of_class("browse") == []
    names = ["curve-loss", "curve-val-top1", "curve-bound-nats", "accuracy", "confusion"]
    assert [path.stem for path in made.plots] == [f"report-{name}" for name in names]
    assert "missing_curve" not in made.figures


def test_no_runs_and_runs_of_another_dataset(
    tiny_dataset: Path, hostile_runs: tuple[Path, list[Path]], tmp_path: Path
) -> None:
    data, runs = hostile_runs
    with pytest.raises(NotBuiltError, match="no trained run in"):
        make_report(data, tmp_path / "none", tmp_path / "out")
    with pytest.raises(TrainingError, match="was trained on another dataset"):
        make_report(tiny_dataset, runs, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "page.html").mkdir()
    for out, says in (("file", "is a file"), ("file/page.html", "is a file"), ("page.html", "is a directory")):
        with pytest.raises(UsageError, match=says):
            page_path(tmp_path / out)
    assert page_path(tmp_path / "new" / "place") == tmp_path / "new" / "place" / "report.html"
    assert page_path(tmp_path / "new" / "page.html") == tmp_path / "new" / "page.html"
    assert not (tmp_path / "new").exists()
