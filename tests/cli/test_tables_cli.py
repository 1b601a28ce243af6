"""Tables from literal figures."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from symile_m3.cli.output import PLAIN_WIDTH, command, duration, size
from symile_m3.cli.tables import audit_tables, evaluation_tables, run_table

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
        "symile": {"overall": 0.3, "both": 0.7, "audio_only": 0.0042, "text_only": 0.4, "none": 0.004},
        "clip": {"overall": 0.2, "both": 0.45, "audio_only": 0.003, "text_only": 0.41, "none": 0.005},
        "fill": {"symile": "the mean over the training set", "clip": "the mean over the training set"},
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
