from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from symile_m3.shards import epoch_order, rank_share

SIZES = st.lists(st.integers(0, 12), max_size=12)


@given(sizes=SIZES, seed=st.integers(0, 2**64 - 1), epoch=st.integers(0, 2**64 - 1), window=st.integers(1, 200))
def test_an_order_is_a_permutation_and_a_function_of_its_arguments(
    sizes: list[int], seed: int, epoch: int, window: int
) -> None:
    order = epoch_order(sizes, seed, epoch, window=window)
    assert order.dtype == np.int64
    assert sorted(order.tolist()) == list(range(sum(sizes)))
    np.testing.assert_array_equal(order, epoch_order(sizes, seed, epoch, window=window))


def test_the_order_is_the_same_everywhere() -> None:
    """Constants: a change would silently change every run that is resumed or repeated."""
    assert epoch_order([3, 3, 2], 7, 0).tolist() == [3, 7, 1, 6, 2, 5, 0, 4]
    assert epoch_order([3, 3, 2], 7, 1, window=4).tolist() == [6, 7, 4, 5, 3, 2, 1, 0]


def test_epochs_and_seeds_differ() -> None:
    orders = [epoch_order([50] * 4, seed, epoch, window=60) for seed in (0, 1) for epoch in (0, 1)]
    for i, order in enumerate(orders):
        for other in orders[:i]:
            assert (order == other).mean() < 0.1


@given(sizes=st.lists(st.integers(1, 12), min_size=1, max_size=12), window=st.integers(1, 40))
def test_a_window_holds_whole_shards_and_no_more_than_it_may(sizes: list[int], window: int) -> None:
    """Read in order, a shard is opened once, and the shards open together fit the window."""
    order = epoch_order(sizes, 3, 0, window=window)
    ends = np.cumsum(sizes)
    shard_of = np.searchsorted(ends, order, side="right")
    at = 0
    while at < len(order):
        inside = {int(shard_of[at])}
        held = sizes[int(shard_of[at])]
        end = at + 1
        while end < at + held:
            shard = int(shard_of[end])
            if shard not in inside:
                inside.add(shard)
                held += sizes[shard]
            end += 1
        assert held <= window or len(inside) == 1 or sum(sizes) <= window
        at = end


def test_a_window_is_shuffled_throughout() -> None:
    order = epoch_order([100] * 10, 0, 0, window=500)
    for half in (order[:500], order[500:]):
        shards = half // 100
        assert len(set(shards.tolist())) == 5
        # the five shards are interleaved: in random order four of five neighbours differ
        assert 0.7 < (shards[1:] != shards[:-1]).mean() < 0.9
        assert abs(np.corrcoef(np.arange(500), half % 100)[0, 1]) < 0.15


@given(
    total=st.integers(0, 60),
    world=st.integers(1, 5),
    batch_size=st.integers(1, 7),
    drop_last=st.booleans(),
    data=st.data(),
)
def test_ranks_part_the_order_between_them(
    total: int, world: int, batch_size: int, drop_last: bool, data: st.DataObject
) -> None:
    start = data.draw(st.integers(0, total))
    order = epoch_order([total], 1, 0)
    shares = [
        rank_share(order, rank, world, batch_size=batch_size, start=start, drop_last=drop_last) for rank in range(world)
    ]
    taken = [int(i) for share in shares for batch in share for i in batch]
    left = total - start
    if drop_last:
        assert {len(share) for share in shares} == {left // (batch_size * world)}
        assert {len(batch) for share in shares for batch in share} <= {batch_size}
        kept = left - left % (batch_size * world)
    else:
        steps = [len(share) for share in shares]
        assert max(steps) - min(steps) <= 1
        assert all(1 <= len(batch) <= batch_size for share in shares for batch in share)
        kept = left
    assert sorted(taken) == sorted(order[start : start + kept].tolist())
    # step by step the world takes the next stretch of the order, rank by rank
    for step in range(left // (batch_size * world)):
        stretch = np.concatenate([share[step] for share in shares])
        at = start + step * batch_size * world
        np.testing.assert_array_equal(stretch, order[at : at + batch_size * world])


@given(
    total=st.integers(1, 80),
    first=st.tuples(st.integers(1, 4), st.integers(1, 5)),
    second=st.tuples(st.integers(1, 4), st.integers(1, 5)),
    data=st.data(),
)
def test_what_is_consumed_is_a_prefix_so_another_world_can_go_on(
    total: int, first: tuple[int, int], second: tuple[int, int], data: st.DataObject
) -> None:
    order = epoch_order([total], 1, 0)
    world, batch_size = first
    shares = [rank_share(order, rank, world, batch_size=batch_size) for rank in range(world)]
    steps = data.draw(st.integers(0, len(shares[0])))
    before = {int(i) for share in shares for batch in share[:steps] for i in batch}
    consumed = steps * world * batch_size
    world, batch_size = second
    shares = [
        rank_share(order, rank, world, batch_size=batch_size, start=consumed, drop_last=False) for rank in range(world)
    ]
    after = {int(i) for share in shares for batch in share for i in batch}
    assert not before & after
    assert before | after == set(range(total))


@pytest.mark.parametrize(
    "call",
    [
        lambda: epoch_order([1], -1, 0),
        lambda: epoch_order([1], 0, 2**64),
        lambda: epoch_order([1], 0, 0, window=0),
        lambda: epoch_order([-1], 0, 0),
        lambda: rank_share(np.arange(4), 2, 2, batch_size=1),
        lambda: rank_share(np.arange(4), 0, 1, batch_size=0),
        lambda: rank_share(np.arange(4), 0, 1, batch_size=1, start=5),
    ],
)
def test_arguments_out_of_range(call: object) -> None:
    with pytest.raises(ValueError, match="must be"):
        call()  # type: ignore[operator]
