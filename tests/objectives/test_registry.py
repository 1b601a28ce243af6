"""Objectives by the names of the command line."""

from __future__ import annotations

import pytest
import torch

from symile_m3.errors import UsageError
from symile_m3.objectives import OBJECTIVES, clip_loss, get_objective, symile_loss


def test_every_name_is_an_objective_with_a_loss_and_scores() -> None:
    reps = [torch.randn(6, 4, generator=torch.Generator().manual_seed(m)) for m in range(3)]
    for name in OBJECTIVES:
        objective = get_objective(name)
        assert objective.name == name
        assert objective.init_log_scale < objective.max_log_scale
        loss = objective.loss(reps, torch.tensor(0.5), observed=None, generator=torch.Generator().manual_seed(0))
        assert loss.shape == ()
        assert objective.scores(reps[1:], reps[0][:5]).shape == (6, 5)


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
    assert not get_objective("clip").bounds_total_correlation


def test_unknown_names_say_what_is_known() -> None:
    with pytest.raises(UsageError, match=r"^--objective magic: unknown; known: symile, clip$"):
        get_objective("magic")
    with pytest.raises(UsageError, match=r"^negatives 'all': unknown; known: n, n:k"):
        get_objective("symile", "all")
