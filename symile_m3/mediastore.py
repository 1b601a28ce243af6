"""The distinct media of a dataset under construction: made once, packed in small tars, read by name."""

from __future__ import annotations

import hashlib
import json
import mmap
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from symile_m3.engines import Engine, LocalEngine, settle
from symile_m3.errors import PlanError
from symile_m3.media import Medium, Pool, Recipe, content_id
from symile_m3.progress import Progress
from symile_m3.seeds import generator
from symile_m3.shards import RawSample, ShardError, ShardIndex, write_shard

PACK_RECIPES = 64  # so much work a kill -9 can undo
TOGETHER = 512  # packs hashed in two to three seconds, about what it takes to start processes


@dataclass(frozen=True, kw_only=True, slots=True)
class _Pack:
    path: Path
    recipes: tuple[Recipe, ...]


def _packs(directory: Path, kind: str, recipes: Sequence[Recipe]) -> list[_Pack]:
    """The packs these recipes go to. Their names hash the recipes, so other recipes never meet old packs."""
    packs = []
    for start in range(0, len(recipes), PACK_RECIPES):
        chunk = tuple(recipes[start : start + PACK_RECIPES])
        text = json.dumps([asdict(recipe) for recipe in chunk], sort_keys=True, ensure_ascii=False)
        digest = hashlib.sha256(text.encode()).hexdigest()[:16]
        packs.append(_Pack(path=directory / f"{kind}-{start // PACK_RECIPES:05d}-{digest}.tar", recipes=chunk))
    return packs


def _make_pack(pool: Pool, pack: _Pack) -> int:
    if pack.path.exists():  # by now: another rank has made it
        return len(pack.recipes)
    samples = (RawSample(recipe.name, {pool.suffix: pool.make(recipe)}) for recipe in pack.recipes)
    write_shard(pack.path, samples)
    return len(pack.recipes)


class MediaStore:
    """The packed media of one pool, by recipe name; picklable, opened anew in every process.

    A build reads each medium many times, so places are plain numbers found once, and only the bytes are
    checked, against their checksum.
    """

    def __init__(self, paths: Sequence[Path], suffix: str) -> None:
        self.paths = tuple(paths)
        self.suffix = suffix
        self._where: dict[str, tuple[int, int, int, int | None]] | None = None  # pack, offset, end, CRC-32
        self._views: dict[int, mmap.mmap] = {}

    def __getstate__(self) -> dict[str, object]:
        return {"paths": self.paths, "suffix": self.suffix, "_where": None, "_views": {}}

    def read(self, name: str) -> bytes:
        """The encoded medium of a recipe.

        Raises:
            ShardError: its pack is gone or was altered.
        """
        pack, at, end, crc32 = self._places()[name]
        view = self._views.get(pack) or self._view(pack)
        data = view[at:end]
        if crc32 is not None and zlib.crc32(data) != crc32:
            raise ShardError(f"{self.paths[pack]}: {name} was altered; delete the file and run the same build again")
        return data

    def __iter__(self) -> Iterator[str]:
        return iter(self._places())

    def _view(self, pack: int) -> mmap.mmap:
        try:
            with self.paths[pack].open("rb") as file:
                self._views[pack] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            raise ShardError(f"{self.paths[pack]}: cannot be read ({error}); run the same build again") from error
        return self._views[pack]

    def _places(self) -> dict[str, tuple[int, int, int, int | None]]:
        """Recipe name -> where it lies."""
        if self._where is None:
            where: dict[str, tuple[int, int, int, int | None]] = {}
            for pack, path in enumerate(self.paths):
                index = ShardIndex.open(path)
                m = index.members.index(self.suffix)
                starts, sizes = index.offsets[:, m].tolist(), index.sizes[:, m].tolist()
                sums = [None] * len(index) if index.crc32 is None else index.crc32[:, m].tolist()
                for i, (at, size, crc32) in enumerate(zip(starts, sizes, sums, strict=True)):
                    where[index.key(i)] = (pack, at, at + size, crc32)
            self._where = where
        return self._where


def _in_turn(packs: Sequence[_Pack], rank: int, world: int) -> list[_Pack]:
    """A rank's own packs, then all others in an order of its own: ranks that help out seldom meet."""
    others = [pack for i, pack in enumerate(packs) if i % world != rank]
    order = generator("packs", rank, world).permutation(len(others))
    return [*packs[rank::world], *(others[i] for i in order)]


def make_media(
    pool: Pool,
    kind: str,
    groups: Sequence[str],
    directory: Path,
    *,
    engine: Engine,
    share: tuple[int, int] = (0, 1),
    progress: Progress,
) -> tuple[list[Recipe], MediaStore]:
    """Make every medium of a pool that is not already packed in `directory`.

    Args:
        kind: `images` or `clips`, for file names and the progress bar.
        share: (rank, world) of this process. Each rank begins with its own part of the packs and then makes
            those that are still missing; a pack that two ranks happen to make at once has the same bytes.

    Raises:
        SourceError: a medium cannot be made; the packs of all others have been.
    """
    recipes = pool.recipes(groups)
    packs = _packs(directory, kind, recipes)
    missing = [pack for pack in _in_turn(packs, *share) if not pack.path.exists()]
    done = len(recipes) - sum(len(pack.recipes) for pack in missing)
    if missing:
        failed = None
        results = settle(engine, partial(_make_pack, pool), missing)
        with closing(results), progress.task(f"Making {kind}", len(recipes), kind, done=done) as task:
            for outcome in results:
                if outcome.error is None:
                    task.advance(len(outcome.task.recipes))
                failed = failed or outcome.error
        if failed is not None:
            raise failed
    return recipes, MediaStore([pack.path for pack in packs], pool.suffix)


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
    """The distinct media by the `media_ids` of their recipes, and a line for each recipe left out.

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
            notes.append(f"{kind}: the same bytes for {', '.join(groups)}; left out")
            continue
        if len(same) > 1:
            notes.append(f"{kind}: {', '.join(recipe.name for recipe in same)} are the same bytes; counted once")
        media.append(Medium(id=digest, recipe=same[0]))
    return tuple(sorted(media, key=lambda medium: (medium.recipe.group, medium.recipe.name))), notes


def check_media(media: Sequence[Medium], ids: Mapping[str, str]) -> None:
    """Check by their `media_ids` that a source still gives the bytes that a plan was made with.

    Raises:
        PlanError: it does not, as after an update of the package that the media come from.
    """
    for medium in media:
        if ids.get(medium.recipe.name) != medium.id:
            raise PlanError(
                f"{medium.recipe.name} from {medium.recipe.source} is no longer what the plan was made with "
                "(another version of the source?); build again with --overwrite"
            )
