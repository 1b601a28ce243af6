"""Objectives by the names of the command line."""

from __future__ import annotations

import pytest
import torch

from symile_m3.cli.train import KNOWN
from symile_m3.errors import UsageError
from symile_m3.objectives import OBJECTIVES, clip_loss, get_objective, sigmoid_loss, symile_loss
from symile_m3.wording import TITLES


def test_every_name_is_an_objective_with_a_loss_and_scores() -> None:
    reps = [torch.randn(6, 4, generator=torch.Generator().manual_seed(m)) for m in range(3)]
    for name in OBJECTIVES:
        objective = get_objective(name)
        assert objective.name == name
        assert objective.init_log_scale < objective.max_log_scale
        head = objective.head(3, 4) if objective.head else None
        random, labels = torch.Generator().manual_seed(0), [torch.arange(6)] * 3
        loss = objective.loss(
            reps, torch.tensor(0.5), observed=None, generator=random, group=None, head=head, labels=labels
        )
        assert loss.shape == ()
        scores = objective.scores_with(head, retrieved=0, given=(1, 2))
        assert scores(reps[1:], reps[0][:5]).shape == (6, 5)
        if objective.role_scores is None:
            assert torch.equal(scores(reps[1:], reps[0]), objective.scores(reps[1:], reps[0]))
        else:
            with pytest.raises(ValueError, match=r"scores_with"):
                objective.scores(reps[1:], reps[0])
            with pytest.raises(ValueError, match=rf"^{name}: its scores need what it has learned$"):
                objective.scores_with(None, retrieved=0, given=(1, 2))


def test_the_command_line_knows_the_same_names() -> None:
    assert KNOWN == OBJECTIVES
    assert set(TITLES) == set(OBJECTIVES)


def test_negatives_are_for_objectives_that_take_them() -> None:
    assert [name for name in OBJECTIVES if get_objective(name).takes_negatives] == ["symile", "sigmoid"]
    reps = [torch.randn(6, 4, generator=torch.Generator().manual_seed(m)) for m in range(3)]
    for negatives in ("n", "n:2", "faces"):
        head = {"bias": torch.tensor(-1.0)}
        found = get_objective("sigmoid", negatives).loss(
            reps, torch.tensor(0.5), head=head, generator=torch.Generator().manual_seed(1)
        )
        random = torch.Generator().manual_seed(1)
        assert torch.equal(found, sigmoid_loss(reps, 0.5, head=head, negatives=negatives, generator=random))
    with pytest.raises(UsageError, match=r"^negatives 'n2': the sigmoid loss takes n, n:k and faces$"):
        get_objective("sigmoid", "n2")


def test_the_losses_are_the_functions() -> None:
    reps = [torch.randn(6, 4, generator=torch.Generator().manual_seed(m)) for m in range(3)]
    scale = torch.tensor(0.5)
    assert torch.equal(get_objective("clip", "faces").loss(reps, scale), clip_loss(reps, scale))
    for negatives in ("n", "n:2", "faces", "n2"):
        ours = get_objective("symile", negatives).loss(reps, scale, generator=torch.Generator().manual_seed(1))
        expected = symile_loss(reps, scale, negatives=negatives, generator=torch.Generator().manual_seed(1))
        assert torch.equal(ours, expected)


def test_only_shuffled_negatives_of_symile_bound_the_total_correlation() -> None:
    assert get_objective("symile").bounds_total_correlation
    assert not any(get_objective("symile", name).bounds_total_correlation for name in ("n:2", "faces", "n2"))
    assert not any(get_objective(name).bounds_total_correlation for name in OBJECTIVES if name != "symile")


def test_unknown_names_say_what_is_known() -> None:
    known = ", ".join(OBJECTIVES)
    with pytest.raises(UsageError, match=rf"^--objective magic: unknown; known: {known}$"):
        get_objective("magic")
    with pytest.raises(UsageError, match=r"^negatives 'all': unknown; known: n, n:k"):
        get_objective("symile", "all")
