"""Which of the media that were made are distinct: a medium is its content, whatever it is called."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

from symile_m3.engines import Engine, LocalEngine, settle
from symile_m3.errors import PlanError
from symile_m3.media import Medium, Recipe, content_id
from symile_m3.mediastore import MediaStore

TOGETHER = 512  # packs hashed in two to three seconds, about what it takes to start processes
MOST_NOTES = 10  # lines on media that are the same bytes,
MOST_NAMES = 5  # and names in each


def _pack_ids(suffix: str, path: Path) -> list[tuple[str, str]]:
    store = MediaStore([path], suffix)
    return [(name, content_id(store.read(name))) for name in store]


def media_ids(store: MediaStore, engine: Engine, *, together: int = TOGETHER) -> dict[str, str]:
    """The identity of the bytes of all media of a store, by the names of their recipes.

    Args:
        engine: hashes them where there are many.
        together: packs that are hashed in this process, sooner than other processes would have started.

    Raises:
        SymileM3Error: a pack is gone or was altered.
    """
    if len(store.paths) <= together:
        engine = LocalEngine(1)
    ids: dict[str, str] = {}
    with closing(settle(engine, partial(_pack_ids, store.suffix), store.paths)) as outcomes:
        for outcome in outcomes:
            if outcome.error is not None:
                raise outcome.error
            ids.update(outcome.result or ())
    return ids


def distinct_media(
    recipes: Sequence[Recipe], ids: Mapping[str, str], kind: str
) -> tuple[tuple[Medium, ...], list[str]]:
    """The distinct media by the `media_ids` of their recipes, and lines on the first few that are left out.

    A medium is its content: of recipes with the same bytes and group the first stands for all, so no bytes
    are in two splits; bytes that would show two classes or speak two languages are left out.
    """
    by_id: dict[str, list[Recipe]] = {}
    for recipe in recipes:
        by_id.setdefault(ids[recipe.name], []).append(recipe)
    media, notes = [], []
    for digest, same in by_id.items():
        groups = sorted({recipe.group for recipe in same})
        if len(groups) > 1:
            notes.append(f"{kind}: the same bytes for {_first(groups)}; left out")
            continue
        if len(same) > 1:
            notes.append(f"{kind}: {_first([recipe.name for recipe in same])} are the same bytes; counted once")
        media.append(Medium(id=digest, recipe=same[0]))
    if len(notes) > MOST_NOTES:
        notes[MOST_NOTES:] = [f"{kind}: {len(notes) - MOST_NOTES:,} more that are the same bytes as others"]
    return tuple(sorted(media, key=lambda medium: (medium.recipe.group, medium.recipe.name))), notes


def _first(names: Sequence[str]) -> str:
    """The first of some names, and how many more there are."""
    return ", ".join(names[:MOST_NAMES]) + (f" and {len(names) - MOST_NAMES:,} more" if len(names) > MOST_NAMES else "")


def check_media(media: Sequence[Medium], ids: Mapping[str, str]) -> None:
    """Check by their `media_ids` that a source still gives the bytes that a plan was made with.

    Raises:
        PlanError: it does not, as after an update of the package that the media come from.
    """
    for medium in media:
        if ids.get(medium.recipe.name) != medium.id:
            raise PlanError(
                f"{medium.recipe.name} from {medium.recipe.source} is no longer what the plan was made with "
                "(the source was changed, or is of another version); build again with --overwrite"
            )
