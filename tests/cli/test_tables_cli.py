"""Tables from literal figures."""

from __future__ import annotations

import io
from itertools import combinations
from typing import Any

import pytest
from rich.console import Console

from symile_m3.cli.eval_tables import more_tables
from symile_m3.cli.output import PLAIN_WIDTH, command, duration, size
from symile_m3.cli.tables import audit_tables, beside, evaluation_tables, run_table
from symile_m3.objectives import OBJECTIVES
from symile_m3.wording import objective_title

REPORT: dict[str, Any] = {
    "dataset": {"languages": 2, "words": 2, "classes": 250, "split_by": "media", "fingerprint": "f" * 32},
    "bounds": {"text_only": 0.5, "audio_only": 0.004, "image_ceiling": 0.84, "language_ceiling": 0.97},
    "results": {
        "symile": {
            "top1": 0.7,
            "ci95": [0.68, 0.72],
            "top5": 0.9,
            "by_language": {"el": 0.6, "en": 0.8},
            "n": 2000,
        },
        "clip": {
            "top1": 0.45,
            "ci95": [0.43, 0.47],
            "top5": 0.8,
            "by_language": {"el": 0.4, "en": 0.5},
            "n": 2000,
        },
    },
    "missing": {
        "p": 0.5,
        "symile": {
            "overall": 0.3,
            "both": 0.7,
            "audio_only": 0.0042,
            "text_only": 0.4,
            "none": 0.004,
            "fill": "the mean over the training set",
        },
        "clip": {
            "overall": 0.2,
            "both": 0.45,
            "audio_only": 0.003,
            "text_only": 0.41,
            "none": 0.005,
            "fill": "the mean over the training set",
        },
    },
}


def lines(parts: Any) -> list[str]:
    console = Console(width=PLAIN_WIDTH, record=True, file=io.StringIO())
    for part in parts:
        console.print(part)
    return [" ".join(line.split()) for line in console.export_text().splitlines()]


def test_evaluation() -> None:
    text = lines(evaluation_tables(REPORT))
    assert "Image from audio and text: 2,000 queries, 2 languages, 2 words a text, 250 classes" in text
    assert "Symile 0.700 0.680 to 0.720 0.900" in text
    assert "CLIP 0.450 0.430 to 0.470 0.800" in text
    assert "text alone 0.500 exact, 1/2" in text
    assert "audio alone 0.0040 exact, 1/250" in text
    assert any(line.startswith("image ceiling 0.840 measured") for line in text)
    assert any(line.startswith("language ceiling 0.970 measured") for line in text)
    assert "el Greek 0.600 0.400" in text
    assert "en English 0.800 0.500" in text
    assert "all queries 0.300 0.200 -" in text
    assert "audio and text 0.700 0.450 1.000" in text
    assert "text only 0.400 0.410 0.500" in text
    assert "audio only 0.0042 0.0030 0.0040" in text
    assert "nothing 0.0040 0.0050 0.0040" in text
    assert "In place of what is hidden, Symile and CLIP: the mean over the training set" in text


def test_evaluation_without_hidden_queries_or_ceilings() -> None:
    report = {**REPORT, "bounds": {"text_only": 0.5, "audio_only": 0.004}}
    del report["missing"]
    text = lines(evaluation_tables(report))
    assert not any("ceiling" in line or "hidden" in line for line in text)


def test_differences_ranks_and_runs_stand_in_the_first_table() -> None:
    results = {
        name: {**result, "mrr": 0.75, "runs": [{"seed": 0}, {"seed": 1}]} for name, result in REPORT["results"].items()
    }
    difference = {"top1": 0.25, "ci95": [0.2, 0.3], "n": 2000, "runs": 2}
    missing = {**REPORT["missing"], "exact": {"overall": 0.377, "both": 1.0}}
    text = lines(
        evaluation_tables(
            {**REPORT, "results": results, "differences": {"symile - clip": difference}, "missing": missing}
        )
    )
    assert "Symile 0.700 0.680 to 0.720 0.900 0.750 2 runs" in text
    assert "Symile - CLIP +0.250 +0.200 to +0.300 on the same queries" in text
    assert "all queries 0.300 0.200 0.377" in text


def test_of_many_rows_the_differences_from_the_first_are_shown() -> None:
    names = ("symile", "clip", "gram", "soft")
    results = dict.fromkeys(names, REPORT["results"]["clip"])
    difference = {"top1": 0.25, "ci95": [0.2, 0.3], "n": 2000, "runs": 1}
    report = {**REPORT, "results": results}
    report["differences"] = {f"{one} - {other}": difference for one, other in combinations(names, 2)}
    text = lines(evaluation_tables(report))
    assert sum("on the same queries" in line for line in text) == 3
    assert "3 others with --json" in text
    report["results"] = {name: results[name] for name in names[:3]}
    report["differences"] = {f"{one} - {other}": difference for one, other in combinations(names[:3], 2)}
    text = lines(evaluation_tables(report))
    assert sum("on the same queries" in line for line in text) == 3
    assert not any("others" in line for line in text)


def test_more_tables_are_shown_where_there_are_figures() -> None:
    assert list(more_tables(REPORT)) == []
    figures = {"top1": 0.5, "ci95": [0.4, 0.6], "top5": 0.9, "mrr": 0.65}
    single = {"best": 0.5, "fitting": 0.512, "reader": None, "symile": figures, "clip": figures}
    direction = {
        "right": "images of the class",
        "candidates": 250,
        "chance": 0.004,
        "from": {"audio+text": {**single, "best": 1.0, "fitting": 1.0, "reader": 0.895}, "text": single},
    }
    hidden = {"overall": 0.3, "both": 0.7, "text_only": 0.4, "audio_only": None, "none": 0.004, "fill": "the mean"}
    point = {**hidden, "ci95": {"overall": [0.28, 0.32]}}
    gap = {
        "distances": {"image-audio": 0.7, "audio-text": 1.25},
        "normalised": {**figures, "top1": 0.6},
        "without": figures,
        "difference": {"top1": -0.1, "ci95": [-0.15, -0.05]},
    }
    classes = {
        "u1f436": {"top1": 0.75, "ci95": [0.5, 1.0], "n": 8},
        "u1f431": {"top1": 0.25, "ci95": [0.0, 0.5], "n": 4},
    }
    report = {
        **REPORT,
        "results": {name: {**result, "by_class": classes} for name, result in REPORT["results"].items()},
        "missing_curve": [{"p": 0.25, "symile": point, "clip": point, "exact": {"overall": 0.582}}],
        "trained_missing_curve": {
            "symile": [
                {"p": 0.0, "top1": 0.9, "ci95": [0.88, 0.92], "of_first": 1.0, "of_first_ci95": [1.0, 1.0], "runs": 2},
                {
                    "p": 0.5,
                    "top1": 0.87,
                    "ci95": [0.85, 0.89],
                    "of_first": 0.967,
                    "of_first_ci95": [0.94, 0.99],
                    "runs": 1,
                },
            ]
        },
        "directions": {
            **dict.fromkeys(("image", "audio", "text"), direction),
            "fill": {"symile": "the mean", "clip": "nothing"},
        },
        "modality_gap": {"symile": gap, "clip": gap},
        "total_correlation": {"exact": 5.521, "symile": {"nats": 4.1, "rows": 2000, "highest": 7.6}},
    }
    text = lines(more_tables(report))
    assert "0.25 Symile 0.300 0.280 to 0.320 0.700 0.400 - 0.0040" in text
    assert "0.25 exact 0.582 - - - -" in text
    assert "0.5 Symile 0.870 0.850 to 0.890 0.967 0.940 to 0.990 1" in text
    assert "Image among 250: right are images of the class; chance 0.0040" in text
    assert "audio and text Symile 0.500 0.400 to 0.600 0.900 0.650 1.000 0.895" in text
    assert "text CLIP 0.500 0.400 to 0.600 0.900 0.650 0.512 -" in text
    assert "In place of the modality left out, CLIP: nothing" in text
    assert "Symile 0.700 1.250 0.600 0.500 -0.150 to -0.050" in text
    assert "Symile 4.100 at least: ln 1,999 - loss on the test, 7.60 at most" in text
    assert "CLIP - no bound: its score is not the plain product" in text
    assert "exact 5.521 ln K + ln L - ln w" in text
    worst = text.index("u1f431 4 0.250 0.000 to 0.500 0.250 0.000 to 0.500")
    assert worst < text.index("u1f436 8 0.750 0.500 to 1.000 0.750 0.500 to 1.000")


def test_runs() -> None:
    run = {
        "steps": 1500,
        "best_step": 1200,
        "best_top1": 0.61,
        "seconds": 125.0,
        "directory": "runs/m3/symile",
    }
    assert "Symile 1,500 1,200 0.610 2:05 runs/m3/symile" in lines([run_table({"symile": run})])


def test_audit() -> None:
    checks = [("shards", "20 of 20 as recorded")]
    probes = {
        "class from text": {"accuracy": 0.4, "exact": 0.1, "limit": 0.12},
        "class from image": {"accuracy": 0.8},
    }
    text = lines(audit_tables(checks, probes, ["a.tar: sample k1: cut off"]))
    assert "shards 20 of 20 as recorded" in text
    assert "class from text 0.400 0.100 0.120 too much" in text
    assert "class from image 0.800 - - measured" in text
    assert text[-2:] == ["problem: a.tar: sample k1: cut off", "1 problem"]
    assert lines(audit_tables(checks, {}, []))[-1] == "no problems"


@pytest.mark.parametrize(("nbytes", "text"), [(12, "12 B"), (1234, "1.2 kB"), (5.5e8, "550.0 MB"), (2e12, "2.0 TB")])
def test_size(nbytes: float, text: str) -> None:
    assert size(nbytes) == text


@pytest.mark.parametrize(("seconds", "text"), [(8.21, "8.2 s"), (65, "1:05"), (7400, "2:03:20")])
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_command_quotes_and_leaves_out_defaults() -> None:
    assert command("train", data=("data/my set", "data/m3"), runs=("r", "r")) == "symile-m3 train --data 'data/my set'"


def test_tables_of_all_objectives_fit_a_terminal_and_cut_nothing_off() -> None:
    by_class = {"n01440764": {"top1": 0.3, "ci95": [0.2, 0.4], "n": 8}}
    result = {**REPORT["results"]["symile"], "mrr": 0.8, "by_class": by_class}
    report = {
        **REPORT,
        "results": dict.fromkeys(OBJECTIVES, result),
        "missing": {"p": 0.5, **dict.fromkeys(OBJECTIVES, REPORT["missing"]["symile"])},
        "total_correlation": {"exact": 5.5, "symile": {"nats": 3.0, "rows": 2000, "highest": 7.6}},
    }
    console = Console(width=80, record=True, file=io.StringIO())
    for part in [*evaluation_tables(report), *more_tables(report)]:
        console.print(part)
    text = console.export_text()
    assert "\u2026" not in text
    for name in OBJECTIVES:
        tables = [line for line in text.splitlines() if objective_title(name) in line]
        assert len(tables) >= 5  # overall, by language, missing, bound, class


def test_objectives_are_shared_out_evenly() -> None:
    assert [len(some) for some in beside(OBJECTIVES)] == [3, 3, 3]
    assert beside(["a", "b", "c", "d"]) == [["a", "b", "c", "d"]]
    assert beside([]) == []
