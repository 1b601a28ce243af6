"""What a comparison asks: which objectives, on which data, how often, and what varies."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from symile_m3.comparison import datasets
from symile_m3.comparison.datasets import Source
from symile_m3.comparison.tuning import C, TuneConfig
from symile_m3.errors import UsageError
from symile_m3.modalities.declaration import DeclaredConfig
from symile_m3.objectives import get_objective
from symile_m3.recipe import TrainConfig, naming


@dataclass(frozen=True, kw_only=True, slots=True)
class Over:
    """What varies beside objectives, languages and seeds.

    Attributes:
        key: a setting of the recipe or of the dataset.
        values: as text, each once.
    """

    key: str
    values: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.key or not all(self.values) or not self.values:
            raise UsageError("--over: give KEY=VALUE,VALUE,... such as batch_size=64,128,256")
        if len(set(self.values)) < len(self.values):
            raise UsageError(f"--over {self.key}: a value is given twice")
        if self.key == "seed":
            raise UsageError("--over seed: every point is measured with several seeds already; see --seeds")

    @classmethod
    def parse(cls, text: str) -> Over:
        """From `KEY=VALUE,VALUE,...`.

        Raises:
            UsageError: it is not of that form.
        """
        key, _, values = text.partition("=")
        return cls(key=key.strip(), values=tuple(value.strip() for value in values.split(",")))

    @property
    def of_data(self) -> bool:
        """Whether it is a setting of the dataset."""
        return self.key in datasets.SETTINGS


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """What is compared.

    Attributes:
        objectives: their names.
        seeds: runs of each, with the seeds 0, 1, ...
        recipe: of every run, but for what varies and what is tuned.
        data: datasets that are there; empty for those that are built.
        langs: the numbers of languages to build for, where `data` is empty.
        settings: of the datasets that are built, as text.
        over: what else varies.
        tune: how much is tried for each objective.
        reach: a top-1 to which the time is told, from the validation curves.
        bootstrap: resamples for the intervals.
    """

    objectives: tuple[str, ...]
    seeds: int = 3
    recipe: TrainConfig = field(default_factory=TrainConfig)
    data: tuple[Path | str, ...] = ()
    langs: tuple[str, ...] = ("10",)
    settings: Mapping[str, str] = field(default_factory=dict)
    over: Over | None = None
    tune: TuneConfig = field(default_factory=TuneConfig)
    reach: float = 0.5
    bootstrap: int = 1000

    def __post_init__(self) -> None:
        if not self.objectives:
            raise UsageError("--objective: at least one is needed")
        if len(set(self.objectives)) < len(self.objectives):
            raise UsageError("--objective: one is given twice")
        for name in self.objectives:
            get_objective(name, self.recipe.negatives if takes_negatives(name) else "n")
        if not 1 <= self.seeds <= self.tune.seed:
            raise UsageError(f"--seeds {self.seeds}: at least one")
        if len(set(self.langs)) < len(self.langs) or not (self.langs or self.data):
            raise UsageError("--langs: give numbers of languages, each once")
        if not 0 < self.reach < 1:
            raise UsageError(f"--reach {self.reach:g}: an accuracy between 0 and 1")
        if self.bootstrap < 1:
            raise UsageError(f"--bootstrap {self.bootstrap}: at least one resample")
        varied = self.over is not None and self.over.of_data
        if self.data and (self.settings or varied):
            key = next(iter(self.settings)) if self.settings or self.over is None else self.over.key
            raise UsageError(f"{key} is a setting of datasets that are built: leave --data out, or {key}")
        if self.over is not None and self.over.key == datasets.LANGS and self.langs != ("10",):
            raise UsageError("--over langs and --langs: give one of them")
        if self.over is not None and self.over.key in self.settings:
            raise UsageError(f"--over {self.over.key} and --set {self.over.key}: give one of them")

    def points(self, out: Path) -> list[Point]:
        """What is measured, in order: every dataset with every value.

        Raises:
            UsageError: a key is unknown, or a value is not one of it.
        """
        over = self.over
        found: list[Point] = []
        if over is not None and over.of_data:
            for langs in self.langs:
                for value in over.values:
                    settings = dict(self.settings)
                    if over.key == datasets.LANGS:
                        source = datasets.built(value, settings, out / "data")
                    else:
                        source = datasets.built(langs, {**settings, over.key: value}, out / "data")
                    found.append(Point(source=source, recipe=self.recipe, value=value))
            return found
        sources = (
            datasets.named(self.data)
            if self.data
            else [datasets.built(langs, self.settings, out / "data") for langs in self.langs]
        )
        for source in sources:
            if over is None:
                found.append(Point(source=source, recipe=self.recipe))
                continue
            for value in over.values:
                recipe = self.recipe.with_settings([f"{over.key}={value}"], "--over")
                found.append(Point(source=source, recipe=recipe, value=value))
        return found


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """One dataset and one recipe.

    Attributes:
        source: the dataset.
        recipe: before tuning.
        value: what varies has here; empty where nothing does.
    """

    source: Source
    recipe: TrainConfig
    value: str = ""

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.source.name}, {self.value}" if self.value else self.source.name


def recipe_for(objective: str, recipe: C) -> C:
    """The recipe without settings that the objective has no use for, so that no run is made twice.

    Raises:
        UsageError: the objective does not know the negatives.
    """
    if not get_objective(objective).wants_labels:
        recipe = replace(recipe, soft_targets="labels")
    if not takes_negatives(objective):
        return replace(recipe, negatives="n")
    get_objective(objective, recipe.negatives)
    return recipe


def takes_negatives(objective: str) -> bool:
    """Whether the recipe's negatives are for this objective.

    Raises:
        UsageError: there is no such objective.
    """
    return get_objective(objective).takes_negatives


def recipe_key(recipe: TrainConfig | DeclaredConfig) -> str:
    """What names a recipe, whatever the seed."""
    settings = {name: value for name, value in naming(recipe).items() if name != "seed"}
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:10]
