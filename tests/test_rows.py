"""Rows of an evaluation: which runs are taken together, and by what names others stand side by side."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from html_page import Page
from rich.console import Console

from symile_m3.ceilings import Ceilings
from symile_m3.cli.tables import evaluation_tables
from symile_m3.evaluate import evaluate
from symile_m3.features import FeatureConfig
from symile_m3.model import ModelConfig
from symile_m3.progress import NoProgress
from symile_m3.recipe import PAPER, TrainConfig
from symile_m3.report import Report, make_report
from symile_m3.rows import Row, differing, rows_of, settings_of
from symile_m3.train import train
from symile_m3.wording import listed, objective_of, objective_title

SMALL = TrainConfig(
    features=FeatureConfig(image_views=1, audio_steps=2),
    model=ModelConfig(dim=16, image_hidden=16, text_buckets=16),
    steps=6,
    batch_size=16,
    evaluations=2,
)
OTHER = replace(SMALL, negatives="faces", model=replace(SMALL.model, dim=8))
N, FACES = "symile, negatives=n, dim=16", "symile, negatives=faces, dim=8"
WIDE, NARROW = "clip, dim=16", "clip, dim=8"


@dataclass(frozen=True)
class Known:
    """A run of which no more is known than this."""

    name: str
    config: TrainConfig


def keys(*runs: Known) -> list[str]:
    return [row.key for row in rows_of(runs)]


def symiles(*configs: TrainConfig) -> list[Known]:
    return [Known("symile", config) for config in configs]


def with_model(**changes: Any) -> TrainConfig:
    return replace(SMALL, model=replace(SMALL.model, **changes))


# ---- which runs are a row, and its name


def test_one_recipe_is_called_by_its_objective() -> None:
    runs = [Known("clip", SMALL), Known("symile", SMALL), Known("symile", replace(SMALL, seed=3, missing_p=0.5))]
    rows = rows_of(runs)
    assert [row.key for row in rows] == ["symile", "clip"]
    assert [len(row.runs) for row in rows] == [2, 1]
    assert rows[0].least == {"image": 0, "audio": 0, "text": 0}
    assert differing(rows) == {}


def test_soft_targets_part_only_what_is_told_them() -> None:
    texts = replace(SMALL, soft_targets="texts")
    assert keys(Known("symile", SMALL), Known("symile", replace(texts, seed=1))) == ["symile"]
    assert keys(Known("soft", SMALL), Known("soft", texts)) == ["soft, soft_targets=labels", "soft, soft_targets=texts"]


def test_recipes_are_named_by_what_differs_and_by_nothing_else() -> None:
    assert keys(*symiles(SMALL, OTHER)) == [N, FACES]
    assert keys(*symiles(SMALL, replace(SMALL, negatives="faces"))) == [
        "symile, negatives=n",
        "symile, negatives=faces",
    ]
    assert keys(*symiles(SMALL, replace(SMALL, redraw=False))) == ["symile, redraw=true", "symile, redraw=false"]
    assert keys(*symiles(SMALL, replace(SMALL, lr=3e-4))) == ["symile, lr=0.03", "symile, lr=0.0003"]
    full = replace(SMALL, features=replace(SMALL.features, precision="full"))
    assert keys(*symiles(SMALL, full)) == ["symile, features.precision=half", "symile, features.precision=full"]
    mixed = [*symiles(SMALL, with_model(dim=512)), Known("clip", SMALL)]
    assert keys(*mixed) == ["symile, dim=16", "symile, dim=512", "clip"]


def test_what_an_objective_has_no_use_for_tells_no_recipes_apart() -> None:
    changed = replace(SMALL, negatives="faces", model=replace(SMALL.model, symile_log_scale=-5.0))
    assert keys(*(Known("clip", config) for config in (SMALL, replace(changed, seed=1)))) == ["clip"]
    assert len(keys(*symiles(SMALL, changed))) == 2
    assert "negatives" not in settings_of("gram", SMALL)


def test_what_was_missing_at_least_is_a_setting() -> None:
    runs = symiles(SMALL, replace(SMALL, missing_p=0.5), replace(OTHER, missing_p={"image": 0.3}))
    first, second = rows_of(runs)
    assert (len(first.runs), len(second.runs)) == (2, 1)
    assert (first.key, second.key) == (f"{N}, missing_p=0", f"{FACES}, missing_p=image:0.3")


def test_many_differences_are_cut_to_what_tells_the_recipes_apart() -> None:
    rows = rows_of(symiles(SMALL, PAPER, replace(PAPER, lr=3e-4), replace(PAPER, clip_norm=1.0)))
    assert len({row.key for row in rows}) == 4
    for row in rows:
        assert row.key.startswith("symile, ")
        assert 2 <= row.key.count("=") <= 4
        assert row.key.endswith(" more")
        assert len(row.key) < 150
    many = differing(rows)
    assert many[rows[1].key]["audio"] == "whisper:openai/whisper-large-v3"
    assert many[rows[1].key]["dim"] == 8192
    assert {len(settings) for settings in many.values()} == {rows[0].key.count("=") + more_of(rows[0])}


def more_of(row: Row[Known]) -> int:
    return int(row.key.rsplit(", ", 1)[1].removesuffix(" more"))


def test_long_values_are_cut_and_stay_different() -> None:
    def at(folder: str, name: str = "weights.safetensors") -> TrainConfig:
        return with_model(text=f"xlmr:/{folder}/{name}")

    assert keys(*symiles(SMALL, at("home/user - one", "my, own"))) == ["symile, text=ngram", "symile, text=xlmr:my,own"]
    first, second = keys(*symiles(at("home/one/directory"), at("home/two/directory")))
    assert (first, second) == ("symile, text=xlmr:weights.safetensors", "symile, text=xlmr:weights.safetensors (2)")
    (long, _) = keys(*symiles(at("a", "w" * 80), SMALL))
    assert len(long) < 50
    assert "…" in long


def test_names_for_people() -> None:
    assert objective_title(FACES) == "Symile, negatives=faces, dim=8"
    assert objective_title("clip") == "CLIP"
    assert objective_of(FACES) == "symile"
    assert listed(["a", "b", "c"]) == "a, b and c"
    assert listed(["a, x=1", "b", "c, x=2"]) == "a, x=1; b and c, x=2"


# ---- recipes that differ in negatives and D, with two seeds each


@pytest.fixture(scope="module")
def data(tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shutil.copytree(tiny_dataset, tmp_path_factory.mktemp("rows") / "data")


@pytest.fixture(scope="module")
def runs(data: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("runs")
    for name, config in (("n", SMALL), ("faces", OTHER)):
        for seed in (0, 1):
            train(data, root / f"{name}-{seed}", config=replace(config, seed=seed))
    return sorted(root.iterdir(), key=lambda path: (path.name[0] != "n", path.name))


@pytest.fixture(scope="module", autouse=True)
def ceilings() -> Iterator[None]:
    """Given, not measured: those of the features with the audio net of 3 steps are others."""

    def given(dataset: Any, features: Any, key: str) -> Ceilings:
        return Ceilings(image=0.75, language=float(features.clip_NF.float().abs().mean()))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("symile_m3.evaluate.measure_ceilings", given)
        yield


@pytest.fixture(scope="module")
def report(data: Path, runs: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Report:
    out = tmp_path_factory.mktemp("page")
    return make_report(data, runs, out, missing_p=(0.0, 0.5), gallery=6, bootstrap=50)


def test_recipes_stand_side_by_side_with_their_seeds_together(report: Report, data: Path, runs: list[Path]) -> None:
    figures = report.figures
    assert json.loads(json.dumps(figures, allow_nan=False)) == figures
    assert list(figures["results"]) == [N, FACES, WIDE, NARROW]
    for row, directories in ((N, runs[:2]), (FACES, runs[2:]), (WIDE, runs[:2]), (NARROW, runs[2:])):
        result = figures["results"][row]
        assert [run["directory"] for run in result["runs"]] == [str(path / objective_of(row)) for path in directories]
        assert [run["seed"] for run in result["runs"]] == [0, 1]
        alone = evaluate(data, directories, missing_p=(0.0, 0.5), bootstrap=50, bound=True)
        name = objective_of(row)
        assert result == alone["results"][name]  # as if there were no others
        assert [record[row] for record in figures["missing_curve"]] == [r[name] for r in alone["missing_curve"]]
        assert figures["confusion"][row]["target"] == pytest.approx(result["top1"])
        assert "recipes" not in alone
    assert figures["recipes"] == {
        N: {"negatives": "n", "dim": 16},
        FACES: {"negatives": "faces", "dim": 8},
        WIDE: {"dim": 16},
        NARROW: {"dim": 8},
    }
    assert "ceilings" not in figures
    assert "trained_missing_curve" not in figures


def test_many_rows_are_held_against_the_first(report: Report, data: Path, runs: list[Path]) -> None:
    differences = report.figures["differences"]
    assert list(differences) == [f"{N} - {other}" for other in (FACES, WIDE, NARROW)]
    results = report.figures["results"]
    for pair, found in differences.items():
        one, other = pair.split(" - ")
        assert found["top1"] == pytest.approx(results[one]["top1"] - results[other]["top1"])
        assert found["runs"] == 2
    three = evaluate(data, [runs[0], shutil.copytree(runs[2] / "symile", data.parent / "three" / "symile").parent])
    assert list(three["results"]) == [N, FACES, "clip"]
    assert list(three["differences"]) == [f"{N} - {FACES}", f"{N} - clip", f"{FACES} - clip"]


def test_the_page_names_every_row_everywhere(report: Report) -> None:
    page = Page(report.page.read_text(encoding="utf-8"))
    titles = [objective_title(row) for row in report.figures["results"]]
    assert titles[0] == "Symile, negatives=n, dim=16"
    assert page.all("h1")[0].text == "Symile and CLIP by 4 recipes"
    tables = {table.find("hidden")[0].text: table.text for table in page.of_class("figures")}
    assert list(tables) == ["Results", "Settings that differ", "Runs", "Top-1 by what is left"]
    for title in titles:
        assert all(title in text for text in tables.values())
        for seed in (0, 1):
            assert f"{title}, seed {seed}" in tables["Runs"]
        assert any(title in table.text for table in page.of_class("heat"))
        assert sum(title in plot.attributes["aria-label"] for plot in page.of_class("plot")) >= 4  # all but the bound
        assert all(title in card.text for card in page.of_class("card"))
    for query in report.figures["gallery"]["queries"]:
        assert {*titles} == {objective_title(key) for key in query if ", " in key}


def test_the_tables_of_eval_name_every_row(report: Report) -> None:
    console = Console(width=100, record=True, file=io.StringIO())
    figures = dict(report.figures)
    figures["missing"] = figures.pop("missing_curve")[1]
    console.print(*evaluation_tables(figures))
    words = " ".join(console.export_text().split())
    assert "Symile, negatives=n, dim=16" in words
    assert "- Symile, negatives=faces," in words
    assert "Settings that differ" in words
    assert "…" not in words


def test_other_features_are_loaded_for_the_runs_on_them(data: Path, runs: list[Path], tmp_path: Path) -> None:
    config = replace(SMALL, features=replace(SMALL.features, audio_steps=3))
    train(data, tmp_path / "longer", objectives=["symile"], config=config)
    alone = [evaluate(data, path, bootstrap=20) for path in (runs[0], tmp_path / "longer")]
    both = evaluate(data, [runs[0], tmp_path / "longer"], bootstrap=20)
    rows = ["symile, audio_steps=2", "symile, audio_steps=3"]
    assert list(both["results"]) == [*rows, "clip"]
    assert [both["results"][row] for row in rows] == [report["results"]["symile"] for report in alone]
    assert both["bounds"] == alone[0]["bounds"]
    assert [found["rows"] for found in both["ceilings"]] == [[rows[0], "clip"], [rows[1]]]
    languages = [found["language_ceiling"] for found in both["ceilings"]]
    assert languages == [report["bounds"]["language_ceiling"] for report in alone]
    assert languages[0] != languages[1]


class Said(NoProgress):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


def test_a_run_that_differs_in_what_it_has_no_use_for_counts_once(data: Path, runs: list[Path], tmp_path: Path) -> None:
    train(data, tmp_path / "other", config=replace(SMALL, negatives="faces"))
    said = Said()
    report = evaluate(data, [runs[0], tmp_path / "other"], bootstrap=20, progress=said)
    assert list(report["results"]) == ["symile, negatives=n", "symile, negatives=faces", "clip"]
    assert len(report["results"]["clip"]["runs"]) == 1
    assert [line.split(" is left out")[0] for line in said.lines] == [str(tmp_path / "other" / "clip")]
    again = evaluate(data, tmp_path / "other", bootstrap=20)["results"]["clip"]
    assert np.isclose(again["top1"], report["results"]["clip"]["top1"])
