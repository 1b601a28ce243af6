from __future__ import annotations

import pickle
import random
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from shard_samples import small_sample, write_dataset

from symile_m3.shards import Blend, DatasetReader, Loader, LoaderConfig, OrderedSource, RawSample, ShardError


class Numbers:
    """A source of numbers, to look at orders without a disk."""

    def __init__(self, sizes: list[int], name: str = "n") -> None:
        self.shard_sizes = sizes
        self.fingerprint = name

    def __len__(self) -> int:
        return sum(self.shard_sizes)

    def key(self, i: int) -> str:
        return f"{self.fingerprint}{i}"

    def shard(self, i: int) -> str:
        return self.fingerprint

    def read(self, i: int, fields: Any = None) -> dict[str, bytes]:
        return {"txt": self.key(i).encode()}


def order(blend: Blend, epoch: int, *, seed: int = 3, window: int = 40, shuffle: bool = True) -> list[int]:
    return blend.epoch_order(seed, epoch, window=window, shuffle=shuffle).tolist()


@given(
    sizes=st.lists(st.integers(1, 30), min_size=1, max_size=4),
    size=st.integers(1, 90),
    seed=st.integers(0, 2**64 - 1),
    data=st.data(),
)
def test_each_source_has_its_share_and_no_sample_more_than_one_turn_ahead(
    sizes: list[int], size: int, seed: int, data: st.DataObject
) -> None:
    weights = data.draw(st.lists(st.floats(0.01, 100), min_size=len(sizes), max_size=len(sizes)))
    blend = Blend([Numbers([n // 2, n - n // 2]) for n in sizes], weights, epoch_size=size)
    assert blend.epoch_size == size
    for share, weight in zip(blend.shares, weights, strict=True):
        assert abs(share - size * weight / sum(weights)) < 1 + 1e-9
    taken: Counter[int] = Counter()
    for epoch in range(3):
        epoch_order = order(blend, epoch, seed=seed)
        assert epoch_order == order(blend, epoch, seed=seed)
        assert [sum(blend.source_of(i) == s for i in epoch_order) for s in range(len(sizes))] == list(blend.shares)
        taken.update(epoch_order)
        for s in range(len(sizes)):
            of_source = [taken[i] for i in range(len(blend)) if blend.source_of(i) == s]
            assert max(of_source) - min(of_source) <= 1


def test_any_stretch_holds_the_shares() -> None:
    blend = Blend([Numbers([500]), Numbers([100]), Numbers([7])], [5, 3, 2], epoch_size=1000)
    sources = np.array([blend.source_of(i) for i in order(blend, 0)])
    for length in (50, 200):
        for start in range(0, 1000 - length, 37):
            for s, part in enumerate((0.5, 0.3, 0.2)):
                assert abs((sources[start : start + length] == s).sum() - part * length) <= 6
    # evenly, but not in lockstep
    assert len(set(np.diff(np.flatnonzero(sources == 2)).tolist())) > 3


def test_passes_and_epochs_and_sources_have_orders_of_their_own() -> None:
    blend = Blend([Numbers([40]), Numbers([40])], [1, 1], epoch_size=160)
    first = [i for i in order(blend, 0) if i < 40]
    assert sorted(first[:40]) == sorted(first[40:]) == list(range(40))
    assert first[:40] != first[40:]
    second = [i - 40 for i in order(blend, 0) if i >= 40]
    assert second != first
    assert [i for i in order(blend, 1) if i < 40] != first
    assert [i for i in order(blend, 0, seed=4) if i < 40] != first


def test_the_order_of_a_blend_is_the_same_everywhere() -> None:
    """Constants: a change would silently change every run that is resumed or repeated."""
    blend = Blend([Numbers([3, 2]), Numbers([2])], [2, 1], epoch_size=9)
    assert order(blend, 0, seed=7) == GOLDEN[0]
    assert order(blend, 1, seed=7) == GOLDEN[1]
    assert order(blend, 0, shuffle=False) == [0, 5, 1, 2, 6, 3, 4, 5, 0]


GOLDEN = ([4, 6, 0, 2, 3, 5, 1, 5, 1], [2, 6, 4, 3, 0, 5, 4, 1, 6])


@pytest.mark.parametrize(
    ("sizes", "weights", "first", "all_"),
    [((100, 10), (1, 1), 20, 200), ((100, 10), (10, 1), 110, 110), ((6,), (0.5,), 6, 6), ((5, 7), (1, 2), 10, 15)],
)
def test_an_epoch_ends_with_the_first_or_the_last_source(
    sizes: tuple[int, ...], weights: tuple[float, ...], first: int, all_: int
) -> None:
    sources = [Numbers([n]) for n in sizes]
    until_first = Blend(sources, weights)
    assert until_first.epoch_size == first
    assert len(set(order(until_first, 0))) == first  # none repeats
    until_all = Blend(sources, weights, epoch_size="all")
    assert until_all.epoch_size == all_
    assert len(set(order(until_all, 0))) == sum(sizes)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([], []), "0 sources"),
        (([Numbers([1])], [1, 2]), "1 sources and 2 weights"),
        (([Numbers([1])], [0]), "weights must be positive"),
        (([Numbers([1])], [float("nan")]), "weights must be positive"),
        (([Numbers([1])], [float("inf")]), "weights must be positive"),
        (([Numbers([])], [1]), "without samples"),
        (([Blend([Numbers([1])], [1])], [1]), "cannot be blended again"),
        (([Numbers([1]), Numbers([1])], [1, 1], 0), "epoch_size must be"),
        (([Numbers([1]), Numbers([1])], [1, 1], "longest"), "epoch_size must be"),
    ],
)
def test_arguments_that_make_no_blend(arguments: tuple[Any, ...], message: str) -> None:
    sources, weights, *rest = arguments
    with pytest.raises(ValueError, match=message):
        Blend(sources, weights, **({"epoch_size": rest[0]} if rest else {}))


@pytest.fixture
def blend(tmp_path: Path) -> Blend:
    readers = [
        DatasetReader(write_dataset(tmp_path / "a", (7, 12, 5)), "train"),
        DatasetReader(write_dataset(tmp_path / "b", (4,), lambda i: small_sample(100 + i)), "train"),
    ]
    return Blend(readers, [3, 1], epoch_size=40)


def keys(batches: Any) -> list[list[str]]:
    return [[sample.key for sample in batch] for batch in batches]


def test_a_loader_reads_a_blend_with_ranks_workers_and_exact_resume(blend: Blend) -> None:
    assert isinstance(blend, OrderedSource)
    assert not isinstance(blend.sources[0], OrderedSource)
    base = {"batch_size": 4, "seed": 5, "window": 20, "drop_last": False}
    loader = Loader(blend, LoaderConfig(**base))
    assert len(loader) == 10
    whole = keys(loader) + keys(loader)
    assert [sum(key >= "000100" for batch in whole[k : k + 10] for key in batch) for k in (0, 10)] == [10, 10]
    assert len({key for batch in whole for key in batch}) == 28
    shares = [keys(Loader(blend, LoaderConfig(**base, rank=rank, world=2))) for rank in range(2)]
    assert [batch for pair in zip(*shares, strict=True) for batch in pair] == whole[:10]
    with_workers = Loader(blend, LoaderConfig(**base, workers=2))
    assert keys(with_workers) == whole[:10]
    generator = random.Random(0)
    for steps in (0, 9, generator.randrange(10), generator.randrange(10)):
        running = Loader(blend, LoaderConfig(**base))
        batches = iter(running)
        for _ in range(steps):
            next(batches)
        with_workers.load_state_dict(running.state_dict())
        assert keys(with_workers) + keys(with_workers) == whole[steps:]
    with_workers.close()
    other = Blend(blend.sources, [1, 1], epoch_size=40)
    with pytest.raises(ValueError, match="fingerprint"):
        Loader(other, LoaderConfig(**base)).load_state_dict(loader.state_dict())
    assert pickle.loads(pickle.dumps(blend)).fingerprint == blend.fingerprint


def test_a_field_that_one_source_lacks_is_refused_at_once(tmp_path: Path, blend: Blend) -> None:
    bare = DatasetReader(write_dataset(tmp_path / "c", (3,), lambda i: RawSample(f"{i}", {"txt": b""})), "train")
    with pytest.raises(ShardError, match="no member 'json'"):
        Loader(Blend([*blend.sources, bare], [1, 1, 1]), LoaderConfig(batch_size=2, seed=0))


def test_samples_know_their_source_and_shard(blend: Blend) -> None:
    assert len(blend) == 28
    assert blend.shard_sizes == [7, 12, 5, 4]
    assert (blend.source_of(23), blend.source_of(24)) == (0, 1)
    assert (blend.key(0), blend.key(24)) == ("000000", "000100")
    assert blend.shard(24) == "train-00000-of-00001.tar"
    assert blend.read(25) == small_sample(101).members
    for i in (-1, 28):
        with pytest.raises(IndexError):
            blend.read(i)
    with pytest.raises(ValueError, match="seed and epoch"):
        blend.epoch_order(-1, 0, window=5, shuffle=True)


class Fetching(Numbers):
    """A source that writes down what it is told comes next."""

    def __init__(self, sizes: list[int], name: str = "n") -> None:
        super().__init__(sizes, name)
        self.told: list[list[int]] = []

    def prefetch(self, numbers: Any) -> None:
        self.told.append(list(map(int, numbers)))


def test_each_source_is_told_its_part_of_what_comes_next() -> None:
    first, plain, last = Fetching([3]), Numbers([4]), Fetching([2, 3])
    blend = Blend([first, plain, last], [1, 1, 1])
    blend.prefetch([11, 0, 5, 7, 2, 8])
    assert first.told == [[0, 2]]
    assert last.told == [[4, 0, 1]]
    blend.prefetch([4])
    assert (len(first.told), len(last.told)) == (1, 1)
    Blend([plain], [1]).prefetch([1])


def test_a_loader_of_a_blend_tells_its_sources_ahead_of_their_batches() -> None:
    sources = [Fetching([40]), Fetching([30, 30])]
    loader = Loader(
        Blend(sources, [1, 2], epoch_size=60), LoaderConfig(batch_size=6, seed=1, window=32, fields=("txt",))
    )
    order = loader.order(0)
    next(iter(loader))
    told = [source.told[0] for source in sources]
    assert told == [[i for i in order[:32] if i < 40], [i - 40 for i in order[:32] if i >= 40]]
