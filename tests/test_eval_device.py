"""Evaluation on an accelerator: what is computed there, what comes back, and the same figures as on the CPU."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pretended_device import DEVICE, Pretended, pretended_device
from random_model import random_model

from symile_m3.evaluate import evaluate
from symile_m3.features import Features, open_dataset
from symile_m3.measures import Asked, Measures, measure
from symile_m3.model import MODALITIES, Model
from symile_m3.objectives import OBJECTIVES, get_objective
from symile_m3.questions import Questions
from symile_m3.ranking import Answers, first_candidate, first_right
from symile_m3.repstore import StoredRows, store
from symile_m3.towers.text import Tokeniser

TOKENISER = Tokeniser(["x"], buckets=50)
ASKED = Asked(missing=(0.5,), directions=True, gap=True, retrieved=True)


@pytest.fixture(scope="module")
def questions(tiny_dataset: Path) -> Questions:
    dataset = open_dataset(tiny_dataset)
    random = torch.Generator().manual_seed(0)
    features = Features(
        image_NVF=torch.randn(len(dataset.images.row_of), 2, 6, generator=random).half(),
        clip_NF=torch.randn(len(dataset.clips.row_of), 4, generator=random).half(),
        clip_mask_NT=None,
    )
    return Questions.of_split(dataset, features, "test", TOKENISER)


def model_of(name: str) -> Model:
    return random_model(name, TOKENISER.rows)


def measured(model: Model, name: str, questions: Questions, learned: bool, asked: Asked = ASKED) -> Measures:
    return measure(model, get_objective(name), questions, TOKENISER, asked, learned=MODALITIES if learned else ())


def tensors(measures: Measures) -> dict[str, torch.Tensor]:
    found = {"complete": measures.ranks_Q, "retrieved": measures.retrieved_Q}
    found |= {f"missing {p}": ranks for p, ranks in measures.missing.items()}
    found |= {str(key): ranks for key, ranks in measures.directions.items()}
    assert measures.gap is not None
    found |= {name: value for name, value in vars(measures.gap).items() if isinstance(value, torch.Tensor)}
    return {name: value for name, value in found.items() if value is not None}


@pytest.mark.parametrize(
    ("name", "learned"), [("symile", False), ("symile", True), ("clip", False), ("gated", True), ("confu", False)]
)
def test_all_is_computed_where_the_model_is_and_comes_back(name: str, learned: bool, questions: Questions) -> None:
    expected = measured(model_of(name), name, questions, learned)
    model = model_of(name)
    seen: list[Any] = []
    for tower in model.towers.values():
        tower.register_forward_hook(lambda tower, given, found: seen.append(found))
    with pretended_device():
        found = measured(model.to(DEVICE), name, questions, learned)
    assert seen
    assert all(isinstance(rep, Pretended) for rep in seen)
    for key, ranks in tensors(found).items():
        assert not isinstance(ranks, Pretended)
        assert ranks.tolist() == tensors(expected)[key].tolist(), key
    assert found.gap is not None
    assert expected.gap is not None
    assert found.gap.distances == expected.gap.distances


def test_representations_of_a_file_are_ranked_on_the_device() -> None:
    """In tiles of a few rows, so that none is moved as a whole."""
    random = torch.Generator().manual_seed(0)
    query_QD, candidate_ND = torch.randn(20, 8, generator=random), torch.randn(31, 8, generator=random)
    answers = Answers(wanted_Q=torch.arange(20) % 5, labels_NW=torch.arange(31)[:, None] % 5)
    given: list[torch.Tensor] = []

    def scores(query_reps: Any, candidates: torch.Tensor) -> torch.Tensor:
        given.extend([*query_reps, candidates])
        found: torch.Tensor = query_reps[0] @ candidates.T
        return found

    both = first_candidate, first_right
    expected = [of(scores, [query_QD], candidate_ND, answers, memory_budget=2000) for of in both]
    with pretended_device():
        stored = [store([rep.to(DEVICE)], len(rep), in_memory=0) for rep in (query_QD, candidate_ND)]
        assert all(isinstance(rep, StoredRows) for rep in stored)
        given.clear()
        found = [
            of(scores, stored[:1], stored[1], answers, memory_budget=2000) for of in (first_candidate, first_right)
        ]
    assert all(isinstance(rep, Pretended) and len(rep) < 31 for rep in given)
    assert [ranks.tolist() for ranks in found] == [ranks.tolist() for ranks in expected]


def test_eval_measures_its_models_on_the_device(
    trained_data: Path, trained_runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []

    def noting(model: Model, *given: Any, **options: Any) -> Measures:
        for tower in model.towers.values():
            tower.register_forward_hook(lambda tower, given, found: seen.append(found))
        return measure(model, *given, **options)

    monkeypatch.setattr("symile_m3.evaluate.measure", noting)
    expected = evaluate(trained_data, trained_runs, missing_p=0.5, bootstrap=20)
    assert seen
    seen.clear()
    monkeypatch.setattr("symile_m3.evaluate.device", lambda: DEVICE)
    with pretended_device():
        found = evaluate(trained_data, trained_runs, missing_p=0.5, bootstrap=20)
    assert seen
    assert all(isinstance(rep, Pretended) for rep in seen)
    assert found == expected


@pytest.mark.gpu
@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_gpu_ranks_as_the_cpu_does(name: str, learned: bool, questions: Questions) -> None:
    """But for candidates whose scores differ by less than the rounding of float32."""
    asked = replace(ASKED, bound=True)
    expected, found = (
        measured(model_of(name).to(device), name, questions, learned, asked) for device in ("cpu", "cuda")
    )
    for key, ranks in tensors(found).items():
        assert ranks.device.type == "cpu"
        assert float((ranks == tensors(expected)[key]).float().mean()) > 0.9, key
    assert (found.bound is None) == (expected.bound is None)
    if found.bound is not None and expected.bound is not None:
        assert found.bound.nats == pytest.approx(expected.bound.nats, abs=1e-3)
