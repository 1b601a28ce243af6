"""The datasets of a comparison: those that are named, or those built for it from numbers of languages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from symile_m3.build import build
from symile_m3.errors import UsageError
from symile_m3.features import Dataset, FeatureConfig, load_features, open_dataset
from symile_m3.languages import parse_languages
from symile_m3.plan import PlanConfig
from symile_m3.progress import Progress

LANGS = "langs"
_NUMBERS = ("classes", "words", "train", "val", "test")
SETTINGS = (LANGS, *_NUMBERS, "clips")


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """A dataset to compare on.

    Attributes:
        name: for people and for paths.
        root: directory or URL.
        plan: of one that is built where it is missing; None for one that must be there.
    """

    name: str
    root: Path | str
    plan: PlanConfig | None = None

    def prepared(self, features: Sequence[FeatureConfig], progress: Progress) -> Dataset:
        """The dataset, built where it is to be and is missing, with these features made.

        Raises:
            SymileM3Error: it cannot be built, or is not there; see `build`, `open_dataset` and `load_features`.
        """
        if self.plan is not None:
            build(self.root, self.plan, progress=progress)
        dataset = open_dataset(self.root, progress=progress)
        for config in dict.fromkeys(features):
            load_features(dataset, config, progress)
        return dataset


def named(roots: Sequence[Path | str]) -> list[Source]:
    """Datasets by directory or URL, called by the last part of it.

    Raises:
        UsageError: two are the same.
    """
    if len({str(root) for root in roots}) < len(roots):
        raise UsageError("--data: a dataset is named twice")
    names = [str(root).rstrip("/").rpartition("/")[2] or str(root) for root in roots]
    twice = {name for name in names if names.count(name) > 1}
    return [
        Source(name=f"{name}-{i}" if name in twice else name, root=root)
        for i, (name, root) in enumerate(zip(names, roots, strict=True))
    ]


def built(langs: str, settings: Mapping[str, str], folder: Path) -> Source:
    """A dataset of one of the paper's sets of languages, with the defaults of `build` but for these settings.

    Args:
        langs: 2, 5 or 10, or codes with `+` between.
        settings: of `SETTINGS`, as text.
        folder: in which it is built.

    Raises:
        UsageError: there are no such languages or settings, or a value is out of range.
    """
    languages = parse_languages(langs.replace("+", ","))
    name = LANGS + langs + "".join(f"-{key}{value.replace(',', '-')}" for key, value in settings.items())
    config = PlanConfig(languages=languages, words=len(languages), classes=250, train=20_000, val=2_000, test=2_000)
    for key, value in settings.items():
        config = replace(config, **_parsed(key, value))
    return Source(name=name, root=folder / name, plan=config)


def _parsed(key: str, value: str) -> dict[str, Any]:
    try:
        numbers = tuple(int(part) for part in value.split(","))
    except ValueError:
        numbers = ()
    if key == "clips" and len(numbers) == 3:
        return {key: numbers}
    if key in _NUMBERS and len(numbers) == 1:
        return {key: numbers[0]}
    if key not in (*_NUMBERS, "clips"):
        raise UsageError(f"--set {key}: no setting of a dataset; known: {', '.join((*_NUMBERS, 'clips'))}")
    wanted = "three whole numbers, such as 480,40,60" if key == "clips" else "a whole number"
    raise UsageError(f"{key}={value}: give {wanted}")
