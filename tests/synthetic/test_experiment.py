"""Training and retrieval on the synthetic process, in small."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from symile_m3.errors import UsageError
from symile_m3.objectives import OBJECTIVES, get_objective
from symile_m3.synthetic import XorProcess
from symile_m3.synthetic.encoders import Encoders
from symile_m3.synthetic.experiment import ExperimentConfig, run_experiment
from symile_m3.synthetic.plot import draw_sweep, sweep_figure
from symile_m3.synthetic.sweep import SweepConfig, run_sweep

SYMILE = ExperimentConfig(objective="symile", steps=60, train=2000, test=1000, batch=150)
CLIP = replace(SYMILE, objective="clip")


def test_symile_learns_the_xor_and_clip_nothing() -> None:
    process = XorProcess(p=1.0)
    assert run_experiment(process, SYMILE).hits_Q.mean() == 1.0
    assert run_experiment(process, CLIP).hits_Q.mean() == pytest.approx(1 / 32, abs=0.04)


def test_nothing_can_be_said_of_b_where_c_is_a() -> None:
    for config in (SYMILE, CLIP):
        assert run_experiment(XorProcess(p=0.0), config).hits_Q.mean() == pytest.approx(1 / 32, abs=0.04)


def test_both_find_c_where_it_is_a() -> None:
    for config in (SYMILE, CLIP):
        assert run_experiment(XorProcess(p=0.0), replace(config, predicted="c")).hits_Q.mean() == 1.0


def test_clip_finds_c_as_well_as_pairs_allow() -> None:
    found = run_experiment(XorProcess(p=0.4), replace(CLIP, predicted="c")).hits_Q.mean()
    assert found == pytest.approx(0.6 + 0.4 / 32, abs=0.05)


def test_symile_learns_the_parity_of_eight() -> None:
    process = XorProcess(p=1.0, dim=1, modalities=8)
    assert run_experiment(process, replace(SYMILE, batch=300, steps=100)).hits_Q.mean() >= 0.99
    assert run_experiment(process, replace(CLIP, steps=20)).hits_Q.mean() == pytest.approx(0.5, abs=0.06)


def test_symile_learns_from_samples_of_which_most_are_incomplete() -> None:
    config = replace(SYMILE, missing_p=0.5, batch=300)
    result = run_experiment(XorProcess(p=1.0), config)
    assert result.hits_Q.mean() >= 0.99
    assert result.hidden_hits_Q is not None
    assert result.missing_Q is not None
    assert result.hidden_hits_Q[result.missing_Q == 0].mean() >= 0.99
    for missing in (1, 2):
        assert result.hidden_hits_Q[result.missing_Q == missing].mean() == pytest.approx(1 / 32, abs=0.05)
    assert (result.missing_Q == 0).mean() == pytest.approx(0.25, abs=0.06)


def test_the_same_run_gives_the_same_result() -> None:
    process = XorProcess(p=0.5)
    config = replace(SYMILE, steps=12, missing_p=0.1)
    first, second = run_experiment(process, config), run_experiment(process, config)
    assert first.loss_nats == second.loss_nats
    assert np.array_equal(first.hits_Q, second.hits_Q)
    other = run_experiment(process, replace(config, seed=1))
    assert other.loss_nats != first.loss_nats


def test_loss_cannot_be_better_than_the_total_correlation_allows() -> None:
    """ln(candidates) - loss bounds the total correlation from below, for samples drawn anew."""
    process = XorProcess(p=1.0)
    result = run_experiment(process, replace(SYMILE, train=40_000, steps=150))
    bound = math.log(150 - 1) - result.loss_nats
    assert bound == pytest.approx(5 * math.log(2), abs=0.2)


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    return run_sweep(SweepConfig(p=(0.0, 1.0), dim=2, seeds=2, steps=40, batch=100), workers=1)


def test_a_sweep_reports_every_objective_at_every_p(report: dict[str, Any]) -> None:
    assert [point["p"] for point in report["points"]] == [0.0, 1.0]
    assert report["chance"] == 0.25
    assert (report["predicted"], report["given"]) == ("b", "ac")
    copied, xored = report["points"]
    assert copied["best"] == {"all": 0.25, "pairs": 0.25}
    assert xored["best"] == {"all": 1.0, "pairs": 0.25}
    for point in report["points"]:
        for name in ("symile", "clip"):
            result = point["results"][name]
            assert len(result["runs"]) == 2
            assert result["top1"] == pytest.approx(np.mean(result["runs"]))
            assert result["ci95"][0] <= result["top1"] <= result["ci95"][1]
    assert xored["results"]["symile"]["top1"] == 1.0


def test_worker_processes_find_the_same(report: dict[str, Any]) -> None:
    again = run_sweep(SweepConfig(p=(0.0, 1.0), dim=2, seeds=2, steps=40, batch=100), workers=2)
    assert {**again, "seconds": 0} == {**report, "seconds": 0}


def test_the_plot_is_a_picture(report: dict[str, Any], tmp_path: Path) -> None:
    draw_sweep(tmp_path / "xor.png", report)
    assert (tmp_path / "xor.png").read_bytes().startswith(b"\x89PNG")


def test_one_p_has_a_bar_for_each_objective_beside_what_is_known(report: dict[str, Any]) -> None:
    point = report["points"][1]
    (axis,) = sweep_figure({**report, "points": [point]}).axes
    found = point["results"]
    assert [bar.get_width() for bar in axis.patches] == [found[name]["top1"] for name in ("symile", "clip")]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["Symile", "CLIP"]
    ends = [bars.get_segments()[0][:, 0].tolist() for bars in axis.collections]
    assert ends == [pytest.approx(found[name]["ci95"]) for name in ("symile", "clip")]
    lines = {line.get_label(): line.get_xdata()[0] for line in axis.lines if not line.get_label().startswith("_")}
    assert lines == {"best from all": 1.0, "best from pairs, chance": 0.25}


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_objective_is_trained_and_retrieved_with(objective: str) -> None:
    process = XorProcess(p=1.0, dim=2)
    config = ExperimentConfig(objective=objective, steps=40, train=500, test=400, batch=50, missing_p=0.1)
    result = run_experiment(process, config)
    assert math.isfinite(result.loss_nats)
    assert result.hidden_hits_Q is not None
    if objective in ("symile", "gated", "confu", "sigmoid", "soft"):  # what sees all three vectors
        assert result.hits_Q.mean() >= 0.6
    if objective in ("clip", "cliplite"):
        assert result.hits_Q.mean() == pytest.approx(0.25, abs=0.1)
    again = run_experiment(process, config)
    assert (again.loss_nats, again.hits_Q.tolist()) == (result.loss_nats, result.hits_Q.tolist())


def test_every_objective_starts_from_the_same_maps() -> None:
    process, starts = XorProcess(p=1.0), []
    for name in ("symile", "gated", "confu"):
        encoders = Encoders(process, 4, get_objective(name), torch.Generator().manual_seed(3))
        starts.append([encoders.weights_MdD, encoders.biases_M1D, encoders.missing_M1D])
    for start in starts[1:]:
        assert all(torch.equal(one, other) for one, other in zip(starts[0], start, strict=True))


def test_an_objective_of_three_vectors_is_refused_for_four() -> None:
    with pytest.raises(UsageError, match="--objective triangle: for 3 vectors a sample, not 4"):
        SweepConfig(p=(1.0,), dim=1, modalities=4, objectives=("symile", "triangle"))


def test_wrong_settings_are_refused_before_any_training() -> None:
    for wrong in ({"predicted": "d"}, {"objectives": ("clap",)}, {"dim": 13}, {"missing_p": 1.0}, {"seeds": 0}):
        with pytest.raises(UsageError):
            SweepConfig(**wrong)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="must be at least 1"):
        replace(SYMILE, steps=0)
