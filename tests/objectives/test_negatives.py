"""Which negatives there are: their names, how many an anchor has, and what their shuffles promise."""

from __future__ import annotations

import re
from itertools import combinations, permutations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from symile_m3.objectives import Negatives, derangement, draw_shuffles, symile_loss
from symile_m3.objectives.negatives import blocks, combined_rows

NAMES = ["n", "n:3", "faces", "n2"]
LINEAR = ["n", "n:3", "faces"]


def candidates(name: str, shuffles: Tensor) -> list[tuple[tuple[int, ...], list[tuple[int, ...]]]]:
    """Of each block: the varied modalities and, for candidate j, the row that each of them has."""
    modalities, size = 4, shuffles.shape[1]
    left = iter(shuffles)
    found = []
    for block in blocks(Negatives.parse(name), modalities):
        rows = combined_rows(len(block.varied), next(left) if block.shuffled else None)
        columns = [list(range(size)) if row is None else row.tolist() for row in rows]
        found.append((block.varied, list(zip(*columns, strict=True))))
    assert next(left, None) is None
    return found


@pytest.mark.parametrize(
    ("name", "kind", "shuffles"),
    [("n", "n", 1), ("n:2", "n", 2), ("n:16", "n", 16), ("faces", "faces", 1), ("n2", "n2", 1)],
)
def test_negatives_by_name(name: str, kind: str, shuffles: int) -> None:
    assert Negatives.parse(name) == Negatives(kind, shuffles)
    assert str(Negatives.parse(name)) == name


def test_one_shuffle_is_the_plain_name() -> None:
    assert Negatives.parse("n:1") == Negatives.parse("n")
    assert str(Negatives.parse("n:1")) == "n"


@pytest.mark.parametrize(
    "name",
    ["", "n:0", "n:-1", "n:", "n:1.5", "n:01", "n:٣", "n3", "faces:2", "n2:2", "n_squared", "N", " n", "n ", "n\n"],
)
def test_unknown_names_are_errors(name: str) -> None:
    says = r"unknown; known: n, n:k \(k shuffles, such as n:4\), faces, n2$"
    for refuse in (
        lambda: Negatives.parse(name),
        lambda: draw_shuffles(name, 3, 4),
        lambda: symile_loss([torch.ones(4, 3)] * 3, 1.0, negatives=name),
    ):
        with pytest.raises(ValueError, match=says) as caught:
            refuse()
        assert str(caught.value).startswith(f"negatives {name!r}: ")


@pytest.mark.parametrize("modalities", [2, 3, 4, 5, 6])
@pytest.mark.parametrize("name", LINEAR)
def test_a_block_keeps_or_varies_every_modality(name: str, modalities: int) -> None:
    for block in blocks(Negatives.parse(name), modalities):
        assert sorted(block.kept + block.varied) == list(range(modalities))
        assert block.kept
        assert block.varied
        assert list(block.varied) == sorted(block.varied)
        assert block.shuffled == (len(block.varied) > 1)


@pytest.mark.parametrize("anchor", range(6))
@pytest.mark.parametrize("modalities", [2, 3, 4, 5, 6])
def test_the_blocks_of_an_anchor_are_those_of_the_definition(modalities: int, anchor: int) -> None:
    """An anchor that the modalities do not have stands for the last."""
    anchor = min(anchor, modalities - 1)
    others = [modality for modality in range(modalities) if modality != anchor]
    everything = tuple(others)
    faces = [(other,) for other in others]
    if modalities > 3:
        faces += list(combinations(others, 2))
    if modalities > 2:
        faces.append(everything)
    expected = {"n": [everything], "n:3": [everything] * (3 if modalities > 2 else 1), "faces": faces}
    for name, varied in expected.items():
        found = [block.varied for block in blocks(Negatives.parse(name), modalities) if anchor in block.kept]
        assert sorted(found) == sorted(varied), name


@pytest.mark.parametrize(
    ("name", "modalities", "per_row"),
    [
        ("n", 2, 1),
        ("n:3", 2, 1),
        ("faces", 2, 1),
        ("n", 3, 1),
        ("n:3", 3, 3),
        ("faces", 3, 3),
        ("n", 4, 1),
        ("n:3", 4, 3),
        ("faces", 4, 7),  # 3 single ones, 3 pairs, all three
        ("faces", 5, 11),  # 4 single ones, 6 pairs, all four
    ],
)
def test_every_anchor_has_as_many_negatives(name: str, modalities: int, per_row: int) -> None:
    found = blocks(Negatives.parse(name), modalities)
    assert [sum(anchor in block.kept for block in found) for anchor in range(modalities)] == [per_row] * modalities
    # Of alike rows all candidates have the same logit.
    reps = [torch.ones(6, 2, dtype=torch.float64)] * modalities
    candidates = symile_loss(reps, 0.5, negatives=name).exp().item()
    assert candidates == pytest.approx(1 + 5 * per_row, rel=1e-12)


@pytest.mark.parametrize("size", [1, 2, 7])
@pytest.mark.parametrize(
    ("name", "modalities", "shuffles"),
    [
        ("n", 2, 0),
        ("n:3", 2, 0),
        ("faces", 2, 0),
        ("n2", 2, 0),
        ("n", 3, 3),
        ("n:3", 3, 9),
        ("faces", 3, 3),
        ("n2", 3, 0),
        ("n", 4, 4),
        ("n:3", 4, 12),
        ("faces", 4, 10),  # 6 pairs, 4 diagonals
        ("n2", 4, 0),
        ("faces", 5, 15),
    ],
)
def test_a_shuffle_is_drawn_for_each_block_of_several_modalities(
    name: str, modalities: int, shuffles: int, size: int
) -> None:
    drawn = draw_shuffles(name, modalities, size, torch.Generator().manual_seed(1))
    assert tuple(drawn.shape) == (shuffles, size)
    assert drawn.dtype == torch.int64
    assert all(sorted(row.tolist()) == list(range(size)) for row in drawn)
    assert torch.equal(drawn, draw_shuffles(name, modalities, size, torch.Generator().manual_seed(1)))
    if shuffles and size == 7:
        assert len({tuple(row.tolist()) for row in drawn}) > 1  # each is drawn anew
        assert not torch.equal(drawn, draw_shuffles(name, modalities, size, torch.Generator().manual_seed(2)))


@settings(deadline=None)
@given(st.integers(1, 300), st.integers(0, 2**32))
def test_a_derangement_is_one_cycle_through_all_rows(size: int, seed: int) -> None:
    shuffle = derangement(size, torch.Generator().manual_seed(seed))
    assert shuffle.dtype == torch.int64
    assert torch.equal(shuffle, derangement(size, torch.Generator().manual_seed(seed)))
    successor, row, visited = shuffle.tolist(), 0, []
    for _ in range(size):
        visited.append(row)
        row = successor[row]
    assert row == 0
    assert sorted(visited) == list(range(size))
    if size > 1:
        assert all(successor[row] != row for row in range(size))


def test_all_cycles_of_four_rows_are_equally_likely() -> None:
    generator = torch.Generator().manual_seed(0)
    drawn = [tuple(derangement(4, generator).tolist()) for _ in range(6000)]

    def is_one_cycle(successor: tuple[int, ...]) -> bool:
        return {0, successor[0], successor[successor[0]], successor[successor[successor[0]]]} == {0, 1, 2, 3}

    cycles = {successor for successor in permutations(range(4)) if is_one_cycle(successor)}
    assert len(cycles) == 6
    assert set(drawn) == cycles
    assert all(abs(drawn.count(cycle) - 1000) < 120 for cycle in cycles)  # over four standard deviations


def test_one_row_stays_where_it_is() -> None:
    assert derangement(1).tolist() == [0]


def test_without_a_generator_the_global_one_is_read() -> None:
    torch.manual_seed(4)
    first = derangement(50)
    assert not torch.equal(derangement(50), first)
    torch.manual_seed(4)
    assert torch.equal(derangement(50), first)


@settings(deadline=None)
@given(st.sampled_from(LINEAR), st.integers(1, 12), st.integers(0, 2**32))
def test_a_negative_differs_from_its_positive(name: str, size: int, seed: int) -> None:
    """And where there are enough rows, all that it varies are of different samples."""
    shuffles = draw_shuffles(name, 4, size, torch.Generator().manual_seed(seed))
    for varied, rows in candidates(name, shuffles):
        assert [row[0] for row in rows] == list(range(size))
        for anchor in range(size):
            for other in range(size):
                if other != anchor:
                    assert rows[other] != (anchor,) * len(varied)
        if size >= len(varied):
            assert all(len(set(row)) == len(varied) for row in rows)


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(NAMES), st.integers(2, 4), st.integers(1, 6), st.integers(0, 2**32))
def test_where_only_the_positive_scores_there_is_no_loss(name: str, modalities: int, size: int, seed: int) -> None:
    """One-hot rows: the MIP is 1 of rows of one sample, and else 0. A positive among the negatives costs ln 2."""
    reps = [torch.eye(size, dtype=torch.float64)] * modalities
    loss = symile_loss(reps, 60.0, negatives=name, generator=torch.Generator().manual_seed(seed))
    assert 0 <= loss.item() < 1e-12


@pytest.mark.parametrize("name", LINEAR)
def test_shuffles_come_from_the_generator_alone(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    reps = [torch.randn(30, 4, generator=generator, dtype=torch.float64) for _ in range(3)]

    def loss(global_seed: int, seed: int) -> Tensor:
        torch.manual_seed(global_seed)
        state = torch.get_rng_state()
        result = symile_loss(reps, 1.0, negatives=name, generator=torch.Generator().manual_seed(seed))
        assert torch.equal(torch.get_rng_state(), state)
        return result

    assert torch.equal(loss(1, 5), loss(2, 5))
    assert not torch.equal(loss(1, 5), loss(1, 6))


@pytest.mark.parametrize("name", LINEAR)
def test_shuffles_drawn_ahead_are_those_that_the_generator_gives(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    reps = [torch.randn(9, 4, generator=generator, dtype=torch.float64) for _ in range(3)]
    shuffles = draw_shuffles(name, 3, 9, torch.Generator().manual_seed(5))
    assert torch.equal(
        symile_loss(reps, 1.0, negatives=name, shuffles=shuffles),
        symile_loss(reps, 1.0, negatives=name, generator=torch.Generator().manual_seed(5)),
    )


@pytest.mark.parametrize(
    ("name", "modalities", "given_shape", "wanted"),
    [
        ("n", 3, (1, 4), (3, 4)),
        ("n", 3, (3, 5), (3, 4)),
        ("n", 3, (4,), (3, 4)),
        ("n", 3, (6, 4), (3, 4)),
        ("n:2", 3, (3, 4), (6, 4)),
        ("faces", 4, (4, 4), (10, 4)),
        ("n", 2, (2, 4), (0, 4)),
    ],
)
def test_shuffles_of_another_shape_are_an_error(
    name: str, modalities: int, given_shape: tuple[int, ...], wanted: tuple[int, ...]
) -> None:
    shuffles = torch.zeros(given_shape, dtype=torch.int64)
    says = f"shuffles of shape {given_shape}: these negatives and reps need {wanted}"
    with pytest.raises(ValueError, match=re.escape(says)):
        symile_loss([torch.ones(4, 2)] * modalities, 1.0, negatives=name, shuffles=shuffles)
