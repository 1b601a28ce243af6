"""The distinct media of a dataset under construction: made once, packed in small tars, read by name.

images-00007-<digest>.tar        up to 64 media; the digest is of their recipes
images-00007-<digest>.left.json  only where there is something to say: which of the recipes gave no medium and why,
                                 and how many media were made of something out of the ordinary
"""

from __future__ import annotations

import hashlib
import json
import mmap
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from symile_m3.engines import Engine, settle
from symile_m3.errors import SourceError, UnusableError
from symile_m3.media import NotedBytes, Pool, Recipe
from symile_m3.plan_json import recipe_to_json
from symile_m3.progress import Progress
from symile_m3.seeds import generator
from symile_m3.shards import RawSample, ShardError, ShardIndex, write_shard, write_text

PACK_RECIPES = 64  # so much work a kill -9 can undo
FEW_LEFT_OUT = 10  # a build always goes on with this many media left out,
MOST_LEFT_OUT = 0.05  # and at most with this share of all
_LEFT = ".left.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Pack:
    path: Path
    recipes: tuple[Recipe, ...]

    @property
    def left(self) -> Path:
        return self.path.with_suffix(_LEFT)


@dataclass(kw_only=True, slots=True)
class Left:
    """What became of recipes that is not in a tar.

    Attributes:
        out: recipe name -> why it gave no medium.
        noted: what media were made of -> how many.
    """

    out: dict[str, str] = field(default_factory=dict)
    noted: dict[str, int] = field(default_factory=dict)

    def add(self, other: Left) -> None:
        self.out.update(other.out)
        for note, count in other.noted.items():
            self.noted[note] = self.noted.get(note, 0) + count


def _packs(directory: Path, kind: str, recipes: Sequence[Recipe], settings: Mapping[str, object]) -> list[_Pack]:
    """The packs these recipes go to. Their names hash the recipes and the settings, so others never meet old packs."""
    packs = []
    for start in range(0, len(recipes), PACK_RECIPES):
        chunk = tuple(recipes[start : start + PACK_RECIPES])
        content = [dict(settings), [recipe_to_json(recipe) for recipe in chunk]]
        text = json.dumps(content, sort_keys=True, ensure_ascii=False)
        digest = hashlib.sha256(text.encode()).hexdigest()[:16]
        packs.append(_Pack(path=directory / f"{kind}-{start // PACK_RECIPES:05d}-{digest}.tar", recipes=chunk))
    return packs


def _make_pack(pool: Pool, pack: _Pack) -> Left:
    if pack.path.exists():  # by now: another rank has made it
        return _read_left(pack.left)
    out: dict[str, str] = {}
    noted: Counter[str] = Counter()

    def samples() -> Iterator[RawSample]:
        for recipe in pack.recipes:
            try:
                data = pool.make(recipe)
            except UnusableError as error:
                out[recipe.name] = str(error)
                continue
            if isinstance(data, NotedBytes):
                noted[data.note] += 1
            yield RawSample(recipe.name, {pool.suffix: data})

    made = list(samples())
    left = Left(out=out, noted=dict(noted))
    if out or noted:  # before the tar, which says that the pack is made
        text = json.dumps({"out": out, "noted": noted}, sort_keys=True, ensure_ascii=False)
        write_text(pack.left, text)
    else:
        pack.left.unlink(missing_ok=True)  # of a killed build, before a file was repaired
    if made:
        write_shard(pack.path, made)
    return left


def _read_left(path: Path) -> Left:
    """What a pack says of what is not in it.

    Raises:
        ShardError: it was altered.
    """
    try:
        return Left(**json.loads(path.read_bytes()))
    except FileNotFoundError:
        return Left()
    except (OSError, ValueError, TypeError) as error:
        raise ShardError(f"{path}: unreadable ({error}); delete it and its tar, and run the build again") from error


def _made_packs(directory: Path, packs: Sequence[_Pack]) -> dict[Path, Left]:
    """The packs that are made: with a tar, or with nothing to put in one."""
    names = {path.name for path in directory.iterdir()} if directory.is_dir() else set()
    made = {}
    for pack in packs:
        left = _read_left(pack.left) if pack.left.name in names else Left()
        if pack.path.name in names or len(left.out) == len(pack.recipes):
            made[pack.path] = left
    return made


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

    def paths_of(self, names: Iterable[str]) -> set[Path]:
        """The packs that some of its media are in."""
        places = self._places()
        return {self.paths[places[name][0]] for name in names}

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
    settings: Mapping[str, object] | None = None,
    share: tuple[int, int] = (0, 1),
    progress: Progress,
) -> tuple[list[Recipe], MediaStore]:
    """Make every medium of a pool that is not already packed in `directory`.

    Args:
        kind: `images` or `clips`, for file names and the progress bar.
        settings: what decides on the media besides their recipes, such as the source and the size of images; packs
            made with other settings are not used.
        share: (rank, world) of this process. Each rank begins with its own part of the packs and then makes
            those that are still missing; a pack that two ranks happen to make at once has the same bytes.

    Recipes whose medium is of no use (`UnusableError`) are left out, and one line says how many and why. Where they
    were too many, the next run looks at them again.

    Returns:
        The recipes that have given a medium, and the media.

    Raises:
        SourceError: a medium cannot be made, and the packs of all others have been; or so many are of no use that
            something is wrong with the source.
    """
    recipes = pool.recipes(groups)
    packs = _packs(directory, kind, recipes, settings or {})
    left = _made_packs(directory, packs)
    if _too_many(sum(len(one.out) for one in left.values()), len(recipes)):  # of a build that was stopped for it
        forget_left_out(directory, kind)
        left = _made_packs(directory, packs)
    missing = [pack for pack in _in_turn(packs, *share) if pack.path not in left]
    done = len(recipes) - sum(len(pack.recipes) for pack in missing)
    total = Left()
    for one in left.values():
        total.add(one)
    if missing:
        failed = None
        results = settle(engine, partial(_make_pack, pool), missing)
        try:
            with closing(results), progress.task(f"Making {kind}", len(recipes), kind, done=done) as task:
                for outcome in results:
                    if outcome.result is not None:
                        task.advance(len(outcome.task.recipes))
                        left[outcome.task.path] = outcome.result
                        total.add(outcome.result)
                        _check_share(total, len(recipes), kind)
                    failed = failed or outcome.error
        except SourceError:
            forget_left_out(directory, kind)
            raise
        if failed is not None:
            raise failed
        for line in _lines(total, len(recipes), kind):
            progress.say(line)
    full = [pack.path for pack in packs if len(left[pack.path].out) < len(pack.recipes)]
    return [recipe for recipe in recipes if recipe.name not in total.out], MediaStore(full, pool.suffix)


def forget_left_out(directory: Path, kind: str, store: MediaStore | None = None, names: Iterable[str] = ()) -> None:
    """Remove the packs with recipes that gave no medium, so that a later build tries these anew.

    Called where a build stops for its media: the files they were made of may be repaired under the same names.

    Args:
        kind: `images` or `clips`.
        store, names: media whose packs are removed as well, such as those that were copies of others.

    Raises:
        ShardError: they cannot be removed.
    """
    paths = store.paths_of(names) if store is not None else set()
    try:
        paths |= {left.with_name(left.name.removesuffix(_LEFT) + ".tar") for left in _with_left_out(directory, kind)}
        for path in paths:
            path.unlink(missing_ok=True)
            path.with_suffix(_LEFT).unlink(missing_ok=True)
    except OSError as error:
        raise ShardError(f"{directory}: cannot be changed ({error.strerror}); remove it") from error


def _with_left_out(directory: Path, kind: str) -> list[Path]:
    return [path for path in directory.glob(f"{kind}-*{_LEFT}") if _read_left(path).out]


def _too_many(count: int, of: int) -> bool:
    return count > max(FEW_LEFT_OUT, MOST_LEFT_OUT * of)


def _check_share(left: Left, of: int, kind: str) -> None:
    """Raise SourceError where too much is left out for a build to go on."""
    if _too_many(len(left.out), of):
        raise SourceError(
            f"{len(left.out):,} of the {of:,} {kind} cannot be used so far, which is more than a build leaves out "
            f"({MOST_LEFT_OUT:.0%}, or {FEW_LEFT_OUT}): {_examples(left)}; remove or repair them"
        )


def _examples(left: Left) -> str:
    first = [left.out[name] for name in sorted(left.out)[:3]]
    return "; ".join(first) + (f"; and {len(left.out) - 3:,} more" if len(left.out) > 3 else "")


def _lines(left: Left, of: int, kind: str) -> list[str]:
    """What a user is told of it."""
    lines = []
    if left.out:
        lines.append(f"{len(left.out):,} of {of:,} {kind} cannot be used and are left out: {_examples(left)}")
    if left.noted:
        noted = ", ".join(f"{count:,} {note}" for note, count in sorted(left.noted.items()))
        lines.append(f"Among the {kind}: {noted}")
    return lines
