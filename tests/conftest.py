"""What tests of several parts share."""

from __future__ import annotations

import os
import shutil
import signal
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from making_once import MadeOnce, make_once

if TYPE_CHECKING:
    from symile_m3.recipe import TrainConfig

# Tests compute little, several at a time: more threads of torch than CPUs would wait for each other, and busily. Read
# when torch is imported, here and in the commands that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_configure(config: pytest.Config) -> None:
    """Let the commands of tests be interrupted, also where whatever began the tests has Ctrl-C ignored."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> MadeOnce:
    """For what takes long: `made_once(name, make)` is a directory that one test process makes for all of them."""
    base = tmp_path_factory.getbasetemp()
    return partial(make_once, base.parent if "PYTEST_XDIST_WORKER" in os.environ else base)


@pytest.fixture(scope="session")
def tiny_dataset(made_once: MadeOnce) -> Path:
    """A dataset of 2 languages and 8 classes, built once; tests that write to it take a copy."""
    return made_once("tiny", build_tiny) / "data"


def build_tiny(folder: Path) -> None:
    from symile_m3.build import build
    from symile_m3.plan import PlanConfig

    config = PlanConfig(
        languages=("el", "en"),
        words=2,
        classes=8,
        train=64,
        val=16,
        test=16,
        clips=(24, 6, 6),
        shard_samples=32,
    )
    build(folder / "data", config, workers=2)


@pytest.fixture(scope="session")
def featured_dataset(tiny_dataset: Path, made_once: MadeOnce) -> Path:
    """A copy of it with features of two views and four steps of the audio net, and what can be read from them.

    Tests of what comes after the features take a copy of this, as making them takes longer than most of these tests.
    """
    return made_once("featured", partial(build_featured, tiny_dataset)) / "data"


def build_featured(source: Path, folder: Path) -> None:
    from symile_m3.ceilings import measure_ceilings
    from symile_m3.features import FeatureConfig, feature_key, load_features, open_dataset
    from symile_m3.progress import NoProgress

    config = FeatureConfig(image_views=2, audio_steps=4)
    data = shutil.copytree(source, folder / "data", ignore=shutil.ignore_patterns("features"))
    dataset = open_dataset(data)
    features = load_features(dataset, config, NoProgress())
    measure_ceilings(dataset, features, feature_key(dataset, config))


@pytest.fixture(scope="session")
def hostile_runs(tiny_dataset: Path, made_once: MadeOnce) -> tuple[Path, list[Path]]:
    """A dataset with words from right to left and names that are HTML, and directories of runs on it.

    Both objectives are trained with two seeds, and once with modalities missing.
    """
    folder = made_once("hostile", partial(build_hostile, tiny_dataset))
    return folder / "data", [folder / name for name in HOSTILE_RUNS]


HOSTILE_RUNS = {"first": {}, "second": {"seed": 1}, "missing": {"missing_p": 0.5}}


def build_hostile(source: Path, folder: Path) -> None:
    from rewritten_dataset import rewrite

    from symile_m3.features import FeatureConfig
    from symile_m3.model import ModelConfig
    from symile_m3.recipe import TrainConfig
    from symile_m3.train import train

    data = rewrite(source, folder / "data", ("ar", "en", "he"), lambda name: f"<b>{name}</b>")
    small = TrainConfig(
        features=FeatureConfig(image_views=1, audio_steps=2),
        model=ModelConfig(dim=16, image_hidden=16, text_buckets=16),
        steps=8,
        batch_size=16,
        evaluations=2,
    )
    for name, changes in HOSTILE_RUNS.items():
        train(data, folder / name, config=replace(small, **changes))


@pytest.fixture(scope="session")
def short_recipe() -> TrainConfig:
    """A recipe of a few steps, which `trained_runs` are of."""
    from symile_m3.features import FeatureConfig
    from symile_m3.model import ModelConfig
    from symile_m3.recipe import TrainConfig

    return TrainConfig(
        features=FeatureConfig(image_views=1, audio_steps=8),
        model=ModelConfig(dim=32, image_hidden=16, audio_hidden=8),
        steps=6,
        batch_size=16,
        evaluations=2,
    )


@pytest.fixture(scope="session")
def trained_folder(tiny_dataset: Path, short_recipe: TrainConfig, made_once: MadeOnce) -> Path:
    return made_once("trained", partial(train_shortly, tiny_dataset, short_recipe))


def train_shortly(source: Path, recipe: TrainConfig, folder: Path) -> None:
    from symile_m3.train import train

    data = shutil.copytree(source, folder / "data", ignore=shutil.ignore_patterns("features"))
    train(data, folder / "runs", config=recipe)


@pytest.fixture(scope="session")
def trained_data(trained_folder: Path) -> Path:
    """A copy of the tiny dataset, with features, that `trained_runs` were trained on."""
    return trained_folder / "data"


@pytest.fixture(scope="session")
def trained_runs(trained_folder: Path) -> Path:
    """Short runs of Symile and CLIP; tests that write to them take a copy."""
    return trained_folder / "runs"
