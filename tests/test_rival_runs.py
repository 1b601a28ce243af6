"""Training and evaluating with every objective."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from symile_m3.checkpoints import BEST, load_weights
from symile_m3.errors import UsageError
from symile_m3.evaluate import evaluate
from symile_m3.features import FeatureConfig
from symile_m3.model import ModelConfig
from symile_m3.objectives import OBJECTIVES, get_objective
from symile_m3.recipe import TrainConfig
from symile_m3.standins import APPROXIMATE, MEAN, MEAN_UNIT
from symile_m3.train import train

SMALL = TrainConfig(
    features=FeatureConfig(image_views=2, audio_steps=4),
    model=ModelConfig(dim=8, image_hidden=8, text_buckets=8),
    steps=4,
    batch_size=16,
    evaluations=2,
)


def test_every_objective_trains_and_is_evaluated(featured_dataset: Path, tmp_path: Path) -> None:
    data, runs = tmp_path / "data", tmp_path / "runs"
    shutil.copytree(featured_dataset, data)
    summaries = train(data, runs, objectives=OBJECTIVES, config=SMALL)
    assert [summary.objective for summary in summaries] == list(OBJECTIVES)
    for name in OBJECTIVES:
        objective, weights = get_objective(name), load_weights(runs / name / BEST)
        learned = {key.removeprefix("head."): value for key, value in weights.items() if key.startswith("head.")}
        assert set(learned) == (set(objective.head(3, 8)) if objective.head else set())
        if name == "sigmoid":
            assert learned["bias"].item() != -6.0
    report = evaluate(data, runs, missing_p=0.5, directions=True, gap=True, bound=True, bootstrap=10)
    assert list(report["results"]) == list(OBJECTIVES)
    products = ["symile", "sigmoid", "soft"]
    assert {name for name in OBJECTIVES if report["missing"][name]["fill"] == MEAN} == set(products)
    cosines = ["clip", "cliplite"]
    assert [name for name in OBJECTIVES if report["missing"][name]["fill"] == MEAN_UNIT] == cosines
    assert report["missing"]["gram"]["fill"] == APPROXIMATE
    assert report["directions"]["fill"]["gram"] == "nothing; its score is the volume of the pair"
    assert [name for name in OBJECTIVES if name in report["total_correlation"]] == products


def test_missing_modalities_are_learned_by_every_objective(featured_dataset: Path, tmp_path: Path) -> None:
    data, runs = tmp_path / "data", tmp_path / "runs"
    shutil.copytree(featured_dataset, data)
    config = replace(SMALL, missing_p=0.4, steps=3, evaluations=1)
    train(data, runs, objectives=OBJECTIVES[2:], config=config)
    with_none = {name: load_weights(runs / name / BEST) for name in OBJECTIVES[2:]}
    for name in ("towers.image.indicator", "towers.audio.indicator", "towers.text.missing_D"):
        embeddings = [weights[name] for weights in with_none.values()]
        for number, one in enumerate(embeddings):  # all began as one, so each has moved its own way
            assert all(not torch.equal(one, other) for other in embeddings[number + 1 :])


def test_negatives_for_objectives_without_any_are_an_error(tiny_dataset: Path, tmp_path: Path) -> None:
    config = replace(SMALL, negatives="faces")
    with pytest.raises(UsageError, match=r"^negatives faces: symile and sigmoid take them, not gram and clip; leave"):
        train(tiny_dataset, tmp_path, objectives=["gram", "clip"], config=config)
