"""Where a dataset is built: a directory, which one build at a time holds, or the ranks of one together."""

from __future__ import annotations

import contextlib
import errno
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from symile_m3.card import CROISSANT, write_card
from symile_m3.engines import WorkConfig
from symile_m3.errors import PlanError, ShardError, UsageError
from symile_m3.plan import Plan, PlanConfig, load_plan, save_plan
from symile_m3.shardjob import Media, ShardJob, finished_shard, listed_shards
from symile_m3.shards import DatasetIndex, DatasetLayout, ShardInfo, sweep

Shard = tuple[str, int]
"""A shard by its split and number."""


class Place:
    """A directory in which a dataset is built.

    Attributes:
        layout: where this machine writes; here the dataset itself.
        root: the dataset's place, for messages.
        name: of the dataset.
        advice: what to do where `layout` is of no use.
    """

    advice = "name another directory with --data"

    def __init__(self, root: Path) -> None:
        self.layout = DatasetLayout(root)
        self.root = str(root)
        self.name = root.resolve().name

    def check(self) -> None:
        """Raise PlanError or UsageError if there is anything but a dataset or the start of one."""
        root = self.layout.root
        if root.exists() and not root.is_dir():
            raise UsageError(f"--data {root}: is a file; name a directory")
        if not self.layout.meta.is_dir() and root.exists() and any(root.iterdir()):
            raise PlanError(f"--data {root}: holds other files and no dataset; name an empty or a new directory")

    def has_plan(self) -> bool:
        """Whether a build has begun here."""
        return self.layout.plan.exists()

    def plan(self, config: PlanConfig) -> Plan | None:
        """The plan that is here if it is of this configuration; None where there is none.

        Raises:
            PlanError: it is of another configuration, and which differences.
        """
        if not self.has_plan():
            return None
        plan = self._load_plan()
        differences = config.differences(plan.config)
        if differences:
            raise PlanError(
                f"{self.root} holds a dataset of another plan: {'; '.join(differences)}. "
                "Name another directory with --data, or give --overwrite to build in its place"
            )
        return plan

    def _load_plan(self) -> Plan:
        return load_plan(self.layout.plan)

    def put_plan(self, plan: Plan) -> None:
        """Write the plan, which has to be here before the first shard is."""
        save_plan(plan, self.layout.plan)

    def begin(self, work: WorkConfig, shards: Sequence[str]) -> None:
        """Remove what killed builds left half written.

        Args:
            shards: names of those that this process is to make.
        """
        if work.world == 1:
            self._sweep()

    def listed(self, plan: Plan) -> set[Shard]:
        """The shards whose files are all there by name. That takes three listings, however many shards there are."""
        return listed_shards(self.layout, plan)

    def finished(self, plan: Plan, shards: Iterable[Shard]) -> dict[Shard, ShardInfo]:
        """Of these listed shards, those that are complete: with a marker of this plan, and a tar of the right size."""
        found = ((shard, finished_shard(self.layout, plan, shard)) for shard in shards)
        return {shard: info for shard, info in found if info is not None}

    def job(self, plan: Plan, media: Media) -> Callable[[Shard], ShardInfo]:
        """What makes a shard, called with it in any process."""
        return ShardJob(layout=self.layout, fingerprint=plan.fingerprint, media=media)

    def index(self) -> DatasetIndex | None:
        """The list of shards that is here; None where there is none that can be read."""
        try:
            return DatasetIndex.load(self.layout.index)
        except ShardError:
            return None

    def is_complete(self, index: DatasetIndex) -> bool:
        """Whether the files that are written last are here."""
        there = self.index()
        return there is not None and same_shards(there, index) and self._has_cards()

    def _has_cards(self) -> bool:
        return all(path.exists() for path in (self.layout.readme, self.layout.root / CROISSANT))

    def complete(self, plan: Plan, index: DatasetIndex) -> None:
        """Write what is written last, and remove what only a build needs. Two ranks at once do no harm."""
        write_card(self.layout, plan, index)
        index.save(self.layout.index)  # last: it says that the dataset is complete
        shutil.rmtree(self.layout.pool, ignore_errors=True)
        for lock in self.layout.meta.glob("lock-*"):
            lock.unlink(missing_ok=True)
        self._sweep()

    def leave(self, *, complete: bool) -> None:
        """Remove what no further build of this dataset needs on this machine."""

    def _sweep(self) -> None:
        layout = self.layout
        for directory in (layout.root, layout.data, layout.meta, layout.done, layout.pool, layout.pool / ".symile"):
            sweep(directory)

    def clear(self) -> None:
        """Remove the dataset, but not the lock; index first, plan last: so what is left is known for what it is.

        Raises:
            PlanError: it cannot be removed.
        """
        layout = self.layout
        rest = sorted(path for path in layout.meta.iterdir() if path not in (layout.plan, self._lock))
        try:
            for path in (layout.index, layout.data, layout.readme, layout.root / CROISSANT, *rest, layout.plan):
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink(missing_ok=True)
        except OSError as error:
            raise PlanError(
                f"{layout.root}: the dataset there cannot be removed ({error.strerror}); {self.advice}"
            ) from error

    @property
    def _lock(self) -> Path:
        return self.layout.meta / "lock"

    @contextlib.contextmanager
    def at_work(self, work: WorkConfig) -> Iterator[None]:
        """Hold the dataset's lock, which the system releases when the process ends, however it ends.

        A build alone holds it alone. Ranks hold it together, and each a lock of its own besides.
        """
        with contextlib.ExitStack() as held:
            if work.world > 1:
                held.enter_context(self._locked(self._lock, shared=True))
                held.enter_context(self._locked(self.layout.meta / f"lock-{work.rank}-of-{work.world}"))
            else:
                held.enter_context(self._locked(self._lock))
            yield

    @contextlib.contextmanager
    def _locked(self, path: Path, *, shared: bool = False) -> Iterator[None]:
        import fcntl

        try:
            self.layout.meta.mkdir(parents=True, exist_ok=True)
            file = path.open("a+")  # read and write: network file systems want the one or the other
        except OSError as error:
            raise PlanError(f"{self.layout.root}: cannot be written ({error.strerror}); {self.advice}") from error
        with file:
            try:
                fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                    raise PlanError(
                        f"{path}: the file system refuses locks ({error.strerror}); {self.advice}"
                    ) from error
                raise PlanError(f"{self.root}: another build is at work there; wait for it to end") from error
            yield


def same_shards(one: DatasetIndex, other: DatasetIndex) -> bool:
    """Whether two indexes list the same shards of the same plan."""
    return (one.fingerprint, tuple(one.shards)) == (other.fingerprint, tuple(other.shards))
