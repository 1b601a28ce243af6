"""The rows of an evaluation: the runs of one objective and one recipe, taken together under one name.

Runs of one recipe differ in the seed, and in what was missing in training, of which a row shows the least. What an
objective has no use for is no part of its recipe: CLIP knows no negatives.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from symile_m3.errors import TrainingError
from symile_m3.objectives import OBJECTIVES, get_objective
from symile_m3.progress import Progress
from symile_m3.recipe import LoopConfig
from symile_m3.wording import MORE, PAIRED, objective_of

_POOLED = ("seed", "missing_p")
_NAMED = 3  # settings that a name holds, where these tell the recipes apart
_FIRST = ("image", "audio", "text", "negatives", "dim", "steps", "batch_size", "lr")
"""The settings that are named before others."""
_LONG, _LONGEST = 24, 32  # characters of a value: where folders are left out, where it is cut


class Run(Protocol):
    """A run that is there: its directory, its objective and its recipe."""

    @property
    def directory(self) -> Path: ...
    @property
    def name(self) -> str: ...
    @property
    def config(self) -> LoopConfig: ...


R = TypeVar("R", bound=Run)


@dataclass(frozen=True, kw_only=True)
class Row(Generic[R]):
    """Runs of one objective and recipe.

    Attributes:
        key: the objective, followed by what tells its recipes apart where it has several, as in `symile,
            negatives=faces`; `symile_m3.wording.objective_title` makes it the name for people.
        name: of the objective.
        settings: of the recipe, without the seed.
        runs: in the order they were given.
    """

    key: str
    name: str
    settings: dict[str, Any]
    runs: tuple[R, ...]

    @property
    def least(self) -> dict[str, float]:
        """What was missing in training where that was least: the runs to report, and not to mix with others."""
        return least_missing([run.config for run in self.runs])


def without_twins(runs: Sequence[R], progress: Progress) -> list[R]:
    """The runs without those that are another one again but for settings that their objective has no use for.

    What is left out is said.

    Raises:
        TrainingError: two runs are of one recipe and seed.
    """
    kept: list[R] = []
    for run in runs:
        twin = next((other for other in kept if _same(other, run)), None)
        if twin is None:
            kept.append(run)
        elif twin.config != run.config:
            progress.say(
                f"{run.directory} is left out: its recipe is that of {twin.directory} in all that {run.name} has a "
                "use for, and so is its seed"
            )
        else:
            raise TrainingError(
                f"{twin.directory} and {run.directory} are of one recipe and seed, so they say nothing of how runs "
                "differ; train one of them again with another --seed, or leave it out"
            )
    return kept


def _same(one: Run, other: Run) -> bool:
    """Whether two runs are of one objective, recipe and seed."""
    return (
        one.name == other.name
        and one.config.seed == other.config.seed
        and one.config.missing == other.config.missing
        and settings_of(one.name, one.config) == settings_of(other.name, other.config)
    )


def least_missing(configs: Sequence[LoopConfig]) -> dict[str, float]:
    """What was missing in training where that was least."""
    return min((config.missing for config in configs), key=lambda missing: (sum(missing.values()), *missing.values()))


def rows_of(runs: Sequence[R], *, by_missing: bool = False) -> list[Row[R]]:
    """The rows of these runs, objective by objective, each objective's recipes in the order they were given.

    Args:
        by_missing: whether what was missing in training is a setting as any other, so that no row has several.
    """
    groups: dict[str, list[tuple[dict[str, Any], list[R]]]] = {}
    for run in sorted(runs, key=lambda run: _place(run.name)):
        settings, recipes = settings_of(run.name, run.config), groups.setdefault(run.name, [])
        if by_missing:
            settings["missing_p"] = _simple(run.config.missing)
        same = next((of for known, of in recipes if known == settings), None)
        if same is None:
            recipes.append((settings, [run]))
        else:
            same.append(run)
    rows = []
    for name, recipes in groups.items():
        tables = [
            {**settings, "missing_p": _simple(least_missing([run.config for run in of]))} for settings, of in recipes
        ]
        keys = _keys(name, tables)
        rows += [
            Row(key=key, name=name, settings=table, runs=tuple(of))
            for key, table, (_, of) in zip(keys, tables, recipes, strict=True)
        ]
    return rows


def settings_of(objective: str, config: LoopConfig) -> dict[str, Any]:
    """The settings of a recipe that an objective has a use for, by the names that `--set` takes.

    Without `seed` and `missing_p`; settings of a declared modality are called MODALITY.KEY.
    """
    found: dict[str, Any] = {}
    for item in fields(config):
        value = getattr(config, item.name)
        if item.name in (*_POOLED, *config.parts):
            continue
        if isinstance(value, tuple) and value and all(is_dataclass(one) for one in value):
            found |= {f"{one.name}.{of.name}": getattr(one, of.name) for one in value for of in fields(one)}
        else:
            found[item.name] = value
    for owner in config.parts:
        part = getattr(config, owner)
        for item in fields(part):
            found[f"{owner}.{item.name}" if item.name in found else item.name] = getattr(part, item.name)
    if objective in OBJECTIVES:
        about = get_objective(objective)
        used_by = {
            "negatives": about.takes_negatives,
            "symile_log_scale": about.products,
            "soft_targets": about.wants_labels,
        }
        for name, used in used_by.items():
            if not used:
                found.pop(name, None)
    return found


def pairs_of(keys: Sequence[str]) -> list[tuple[str, str]]:
    """The rows that are held against each other: each against each after it.

    Where there are more than three, and several recipes of an objective among them, each against the first only.
    """
    first_only = len(keys) > PAIRED and any(key != objective_of(key) for key in keys)
    return [(keys[0], other) for other in keys[1:]] if first_only else list(combinations(keys, 2))


def differing(rows: Sequence[Row[R]]) -> dict[str, dict[str, Any]]:
    """Row -> the settings in which any two of the rows differ, in full; empty where none do."""
    names = list(dict.fromkeys(name for row in rows for name in row.settings))
    different = [
        name for name in names if len({_fixed(row.settings[name]) for row in rows if name in row.settings}) > 1
    ]
    if not different:
        return {}
    return {row.key: {name: row.settings[name] for name in different if name in row.settings} for row in rows}


def _place(name: str) -> int:
    return OBJECTIVES.index(name) if name in OBJECTIVES else len(OBJECTIVES)


def _simple(missing: Mapping[str, float]) -> float | dict[str, float]:
    """One probability where all modalities have the same."""
    return next(iter(missing.values())) if len(set(missing.values())) == 1 else dict(missing)


def _fixed(value: Any) -> Any:
    """A value that can be an element of a set."""
    return tuple(value.items()) if isinstance(value, Mapping) else value


def _keys(name: str, recipes: Sequence[Mapping[str, Any]]) -> list[str]:
    """The objective, and of each recipe what differs between them."""
    if len(recipes) == 1:
        return [name]
    values = {key: [_shown(recipe[key]) for recipe in recipes] for key in recipes[0]}
    different = [key for key in values if len({_fixed(recipe[key]) for recipe in recipes}) > 1]
    different.sort(key=lambda key: _FIRST.index(key) if key in _FIRST else len(_FIRST))
    named = different if len(different) <= _NAMED else _telling(different, values, len(recipes))
    rest = len(different) - len(named)
    keys: list[str] = []
    for i in range(len(recipes)):
        parts = [name, *(f"{key}={values[key][i]}" for key in named), *([f"{rest} {MORE}"] if rest else [])]
        key, again = ", ".join(parts), 2
        while key in keys:  # values that look the same when they are cut
            key, again = f"{', '.join(parts)} ({again})", again + 1
        keys.append(key)
    return keys


def _telling(different: Sequence[str], values: Mapping[str, Sequence[str]], recipes: int) -> list[str]:
    """Of many settings those that tell most recipes apart: a few, or as many as it takes."""

    def groups(keys: Sequence[str]) -> int:
        return len({tuple(values[key][i] for key in keys) for i in range(recipes)})

    chosen: list[str] = []
    most = groups(different)
    while len(chosen) < len(different) and (len(chosen) < _NAMED or groups(chosen) < most):
        left = [key for key in different if key not in chosen]
        chosen.append(max(left, key=lambda key: groups([*chosen, key])))  # of several, the first
    return sorted(chosen, key=different.index)


def _shown(value: Any) -> str:
    """A value as `--set` takes it, shortened where it is long."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, Mapping):
        return "+".join(f"{name}:{p:g}" for name, p in value.items() if p)
    text = "x".join(map(str, value)) if isinstance(value, tuple) else str(value)
    if len(text) > _LONG:
        text = re.sub(r"(^|[:@])[^:@]*/", r"\1", text)  # the folders of a path, the owner of a model
    if len(text) > _LONGEST:
        text = f"{text[: _LONGEST // 2 - 1]}…{text[-_LONGEST // 2 :]}"
    return text.replace(", ", ",").replace(" - ", "-")  # which stand between settings, and between rows
