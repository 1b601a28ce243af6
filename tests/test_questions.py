"""The questions of a test, and what is measured of a model, against the samples read one by one."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from random_model import random_model, standin
from torch import Tensor

from symile_m3.exact import RETRIEVED
from symile_m3.features import Dataset, Features, open_dataset
from symile_m3.gap import modality_gap
from symile_m3.information import unseen_bound
from symile_m3.measures import Asked, hidden, measure
from symile_m3.model import MODALITIES, Inputs, Model
from symile_m3.objectives import OBJECTIVES, get_objective
from symile_m3.questions import Questions
from symile_m3.reader import read_ranks
from symile_m3.repstore import Mapped, Replaced
from symile_m3.shards import DatasetReader, decode_json
from symile_m3.standins import APPROXIMATE, LEARNED, MEAN, MEAN_UNIT, learned_representations, mean_representations
from symile_m3.towers.text import Tokeniser

TOKENISER = Tokeniser(["x"], buckets=50)
LINEAR = ("symile", "sigmoid", "soft", "clip", "cliplite")
"""The objectives whose score is linear in each product or cosine, so that means give its expectation."""


@pytest.fixture(scope="module")
def dataset(tiny_dataset: Path) -> Dataset:
    return open_dataset(tiny_dataset)


@pytest.fixture(scope="module")
def features(dataset: Dataset) -> Features:
    random = torch.Generator().manual_seed(0)
    return Features(
        image_NVF=torch.randn(len(dataset.images.row_of), 2, 6, generator=random).half(),
        clip_NF=torch.randn(len(dataset.clips.row_of), 4, generator=random).half(),
        clip_mask_NT=None,
    )


@pytest.fixture(scope="module")
def questions(dataset: Dataset, features: Features) -> Questions:
    return Questions.of_split(dataset, features, "test", TOKENISER)


@pytest.fixture(scope="module")
def records(tiny_dataset: Path) -> list[dict[str, Any]]:
    reader = DatasetReader(tiny_dataset, "test")
    return [decode_json(reader.read(i)["json"]) for i in range(len(reader))]


@pytest.fixture(scope="module")
def training(tiny_dataset: Path) -> list[dict[str, Any]]:
    reader = DatasetReader(tiny_dataset, "train")
    return [decode_json(reader.read(i)["json"]) for i in range(len(reader))]


def model_of(objective: str, seed: int = 0) -> Model:
    return random_model(objective, TOKENISER.rows, seed=seed)


def own_reps(model: Model, questions: Questions, records: list[dict[str, Any]]) -> dict[str, Tensor]:
    """Of each sample's image, clip and text, read anew; float64."""
    model.eval()
    dataset, features = questions.dataset, questions.features
    images = [dataset.images.row_of[record["image_id"]] for record in records]
    clips = [dataset.clips.row_of[record["clip_id"]] for record in records]
    inputs = Inputs(
        given={
            "image": features.image_inputs(torch.tensor(images)),
            "audio": features.clip_inputs(torch.tensor(clips)),
            "text": (TOKENISER(["_".join(record["words"]) for record in records]),),
        }
    )
    with torch.no_grad():
        return {modality: model.encode(modality, inputs).double() for modality in MODALITIES}


Pair = Callable[[list[Tensor], Tensor], float]


def pair_score(name: str, model: Model, retrieved: str, given: Sequence[str]) -> Pair:
    """The score of one query, a (D,) a modality, with one candidate."""
    if name == "symile":
        return lambda query, candidate: float(math.prod([candidate, *query]).sum())
    if name == "clip":
        return lambda query, candidate: sum(float(torch.cosine_similarity(rep, candidate, dim=0)) for rep in query)
    scores = model.scores(get_objective(name), retrieved, given)
    return lambda query, candidate: float(scores([rep[None] for rep in query], candidate[None]).detach())


def naive_ranks(score: Pair, reps: list[Tensor], candidates: Tensor, right: list[list[bool]]) -> list[int]:
    """Query by query and candidate by candidate."""
    found = []
    for q in range(len(reps[0])):
        scores = [score([rep[q] for rep in reps], candidate) for candidate in candidates]
        best = max(score for score, good in zip(scores, right[q], strict=True) if good)
        found.append(1 + sum(s >= best for s, good in zip(scores, right[q], strict=True) if not good))
    return found


def rightness(retrieved: str, questions: Questions, records: list[dict[str, Any]]) -> list[list[bool]]:
    """Told from the samples' own records and the plan's media."""
    plan = questions.dataset.plan
    if retrieved == "text":
        return [
            [
                (r["class_id"], r["lang"]) in zip(other["word_class_ids"], other["word_langs"], strict=True)
                for other in records
            ]
            for r in records
        ]
    row_of = questions.dataset.images.row_of if retrieved == "image" else questions.dataset.clips.row_of
    media = plan.images if retrieved == "image" else plan.clips
    group_of = {row_of[medium.id]: medium.recipe.group for medium in media if medium.id in row_of}
    rows = (questions.image_rows_N if retrieved == "image" else questions.clip_rows_N).tolist()
    own = [r["class_key"] if retrieved == "image" else r["lang"] for r in records]
    return [[group_of[row] == group for row in rows] for group in own]


def test_answers_are_those_of_the_samples(questions: Questions, records: list[dict[str, Any]]) -> None:
    for retrieved, answers in questions.answers.items():
        right = rightness(retrieved, questions, records)
        assert answers.counts().tolist() == [sum(row) for row in right]
        assert answers.chance() == pytest.approx(np.mean(right))
    used = {record["clip_id"] for record in records}
    ids = {row: name for name, row in questions.dataset.clips.row_of.items()}
    assert used <= {ids[row] for row in questions.clip_rows_N.tolist()}


def test_what_fits_is_counted_sample_by_sample(questions: Questions, records: list[dict[str, Any]]) -> None:
    """A random candidate among those that fit; every candidate is looked at."""
    plan = questions.dataset.plan
    images, clips = questions.answers["image"].labels_NW[:, 0], questions.answers["audio"].labels_NW[:, 0]
    languages = plan.lexicon.languages

    def fits(retrieved: str, given: tuple[str, ...], record: dict[str, Any], n: int) -> bool:
        known = {"image": record["class_id"], "audio": record["lang"]}
        if retrieved == "text":
            words = zip(records[n]["word_class_ids"], records[n]["word_langs"], strict=True)
            return any(all(word[["image", "audio"].index(name)] == known[name] for name in given) for word in words)
        if "text" not in given:
            return True
        other = "audio" if retrieved == "image" else "image"
        kept = [
            {"image": c, "audio": lang}
            for c, lang in zip(record["word_class_ids"], record["word_langs"], strict=True)
            if other not in given or {"image": c, "audio": lang}[other] == known[other]
        ]
        own = int(images[n]) if retrieved == "image" else languages[int(clips[n])]
        return any(word[retrieved] == own for word in kept)

    for retrieved, both in RETRIEVED.items():
        right = rightness(retrieved, questions, records)
        for given in (both, *((name,) for name in both)):
            shares = []
            for record, row in zip(records, right, strict=True):
                fitting = [n for n in range(len(row)) if fits(retrieved, given, record, n)]
                shares.append(sum(row[n] for n in fitting) / len(fitting))
            assert questions.fitting(retrieved, given) == pytest.approx(np.mean(shares))


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("learned", [False, True])
def test_every_direction_is_that_of_each_query_alone(
    name: str, learned: bool, questions: Questions, records: list[dict[str, Any]]
) -> None:
    model, objective = model_of(name), get_objective(name)
    found = measure(
        model.train(), objective, questions, TOKENISER, Asked(directions=True), learned=MODALITIES if learned else ()
    )
    reps = own_reps(model, questions, records)
    if learned:
        standins = {modality: standin(model, modality).double() for modality in reps}
    else:
        standins = {
            modality: rep.double()
            for modality, rep in mean_representations(model, objective, questions, TOKENISER, list(reps)).items()
        }
    encoded = questions.encode(model)
    mean = MEAN if name in ("symile", "sigmoid", "soft") else APPROXIMATE
    assert found.single_fill == (LEARNED if learned else objective.alone or mean)
    assert bool(objective.alone) == (name in ("clip", "gram", "confu", "cliplite"))
    for retrieved, both in RETRIEVED.items():
        rows = torch.arange(len(encoded.candidates[retrieved]))
        candidates = encoded.candidates[retrieved][rows].double()
        right = rightness(retrieved, questions, records)
        for given in (both, *((one,) for one in both)):
            alone = bool(objective.alone) and not learned
            queries = [
                reps[modality] if modality in given else standins[modality].expand(len(records), -1)
                for modality in both
                if modality in given or not alone
            ]
            score = pair_score(name, model, retrieved, given if alone else both)
            assert found.directions[retrieved, given].tolist() == naive_ranks(score, queries, candidates, right)


def test_media_are_encoded_once_and_gathered(questions: Questions, records: list[dict[str, Any]]) -> None:
    model = model_of("symile")
    encoded, expected = questions.encode(model), own_reps(model, questions, records)
    for modality, reps in encoded.queries.items():
        torch.testing.assert_close(reps[torch.arange(len(records))], expected[modality].float())


@pytest.mark.parametrize("name", ["symile", "clip"])
def test_means_are_over_the_training_samples(name: str, training: list[dict[str, Any]], questions: Questions) -> None:
    model = model_of(name)
    expected = own_reps(model, questions, training)
    if name == "clip":
        expected = {modality: rep / rep.norm(dim=1, keepdim=True) for modality, rep in expected.items()}
    found = mean_representations(model, get_objective(name), questions, TOKENISER, ["image", "audio", "text"])
    assert len(training) == 64
    for modality, rep in found.items():
        torch.testing.assert_close(rep.double(), expected[modality].mean(dim=0), atol=1e-6, rtol=1e-5)


def test_learned_representations_are_the_models(questions: Questions) -> None:
    model = model_of("symile")
    for modality, rep in learned_representations(model, questions).items():
        torch.testing.assert_close(rep, standin(model, modality))


def expected_scores(
    name: str,
    model: Model,
    questions: Questions,
    training: list[dict[str, Any]],
    reps: dict[str, Tensor],
    masks: dict[str, Tensor],
) -> Tensor:
    """(Q, N) mean scores of the images, every training clip and text in place of what is hidden; float64."""
    known, scores = own_reps(model, questions, training), get_objective(name).scores
    images = questions.encode(model).candidates["image"][torch.arange(len(questions.image_rows_N))].double()
    found = []
    for q in range(len(questions)):
        audio, text = (known[m] if masks[m][q] else reps[m][q : q + 1] for m in ("audio", "text"))
        both = [audio.repeat_interleave(len(text), dim=0), text.repeat(len(audio), 1)]
        found.append(scores(both, images).mean(dim=0))
    return torch.stack(found)


def ranks_of(scores_QN: Tensor, right: list[list[bool]]) -> list[int]:
    good_QN = torch.tensor(right)
    best_Q = scores_QN.masked_fill(~good_QN, -torch.inf).amax(dim=1)
    return [int(rank) for rank in 1 + ((scores_QN >= best_Q[:, None]) & ~good_QN).sum(dim=1)]


@pytest.mark.parametrize("name", OBJECTIVES)
def test_hidden_modalities_are_replaced(
    name: str, questions: Questions, records: list[dict[str, Any]], training: list[dict[str, Any]]
) -> None:
    model = model_of(name)
    asked = Asked(missing=(0.0, 0.5), seed=3)
    found = measure(model, get_objective(name), questions, TOKENISER, asked)
    reps = own_reps(model, questions, records)
    right = rightness("image", questions, records)
    assert torch.equal(found.missing[0.0], found.ranks_Q)
    if name in LINEAR:
        expected_QN = expected_scores(name, model, questions, training, reps, hidden(questions, 0.5, 3))
        assert found.missing[0.5].tolist() == ranks_of(expected_QN, right)
        assert found.fill == (MEAN_UNIT if name in ("clip", "cliplite") else MEAN)
        return
    means = mean_representations(model, get_objective(name), questions, TOKENISER, ["audio", "text"])
    for modality, mask in hidden(questions, 0.5, 3).items():
        reps[modality][mask] = means[modality].double()
    images = questions.encode(model).candidates["image"][torch.arange(len(questions.image_rows_N))].double()
    score = pair_score(name, model, "image", ("audio", "text"))
    assert found.missing[0.5].tolist() == naive_ranks(score, [reps["audio"], reps["text"]], images, right)
    assert found.fill == APPROXIMATE


@pytest.mark.parametrize("name", LINEAR)
def test_what_stands_for_a_missing_modality_gives_the_mean_score_over_all_training_media(
    name: str, questions: Questions, records: list[dict[str, Any]], training: list[dict[str, Any]]
) -> None:
    model, objective = model_of(name), get_objective(name)
    encoded, masks = questions.encode(model), hidden(questions, 0.5, 3)
    patterns = {tuple(pattern) for pattern in torch.stack(list(masks.values()), dim=1).tolist()}
    assert len(patterns) == 4
    means = mean_representations(model, objective, questions, TOKENISER, ["audio", "text"])
    every = torch.arange(len(questions))
    queries = [
        Replaced(Mapped(encoded.queries[modality], objective.term), masks[modality], means[modality])[every]
        for modality in ("audio", "text")
    ]
    images = encoded.candidates["image"][torch.arange(len(questions.image_rows_N))]
    found_QN = model.scores(objective, "image", ("audio", "text"), terms=True)(queries, images)
    expected_QN = expected_scores(name, model, questions, training, own_reps(model, questions, records), masks)
    torch.testing.assert_close(found_QN.double(), expected_QN, atol=2e-6, rtol=2e-6)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_gap_is_that_of_the_samples(name: str, questions: Questions, records: list[dict[str, Any]]) -> None:
    model = model_of(name)
    encoded = questions.encode(model)
    found = modality_gap(model.scores(get_objective(name), "image", ("audio", "text")), questions, encoded)
    unit = {m: rep / rep.norm(dim=1, keepdim=True) for m, rep in own_reps(model, questions, records).items()}
    for first, second in itertools.combinations(unit, 2):
        expected = float((unit[first].mean(dim=0) - unit[second].mean(dim=0)).norm())
        assert found.distances[f"{first}-{second}"] == pytest.approx(expected, rel=1e-5)
    images = encoded.candidates["image"][torch.arange(len(questions.image_rows_N))].double()
    images = images / images.norm(dim=1, keepdim=True)
    right = rightness("image", questions, records)
    score = pair_score(name, model, "image", ("audio", "text"))
    assert found.normalised_Q.tolist() == naive_ranks(score, [unit["audio"], unit["text"]], images, right)
    queries = [unit[modality] - unit[modality].mean(dim=0) for modality in ("audio", "text")]
    assert found.centred_Q.tolist() == naive_ranks(score, queries, images - unit["image"].mean(dim=0), right)


def test_the_bound_of_a_model_that_knows_all_is_below_the_exact_value(questions: Questions) -> None:
    """Words one-hot: the product is 1 exactly where image, clip and text belong together."""
    classes = torch.nn.functional.one_hot(questions.class_ids, 8).float().repeat_interleave(2, dim=1)
    languages = torch.nn.functional.one_hot(questions.language_ids, 2).float().repeat(1, 8)
    words = torch.zeros(len(questions), 16).scatter_(1, questions.answers["text"].labels_NW, 1.0)
    knowing = {"image": classes, "audio": languages, "text": words}
    encoded = questions.encode(model_of("symile"))
    repeated = torch.arange(4000) % len(questions)  # the process itself, as far as 16 samples show it
    model = model_of("symile")
    with torch.no_grad():
        model.log_scale.fill_(math.log(6.0))
    queries = {name: rep[repeated] for name, rep in knowing.items()}
    found = unseen_bound(model, type(encoded)(queries=queries, candidates={}), 0, rows=1000, batches=8)
    assert found.rows == 1000
    assert found.highest == pytest.approx(math.log(999))
    joint = torch.stack([questions.class_ids, questions.language_ids]).T.tolist()
    texts = [tuple(sorted(row)) for row in questions.answers["text"].labels_NW.tolist()]
    exact = sum(map(entropy, (questions.class_ids.tolist(), questions.language_ids.tolist(), texts)))
    exact -= entropy([(*row, text) for row, text in zip(joint, texts, strict=True)])
    assert 0.5 * exact < found.nats < exact
    again = unseen_bound(model, type(encoded)(queries=queries, candidates={}), 0, rows=1000, batches=8)
    assert again == found


def entropy(values: list[Any]) -> float:
    shares = [values.count(value) / len(values) for value in set(values)]
    return -sum(share * math.log(share) for share in shares)


def test_a_reader_that_is_sure_is_always_right(questions: Questions) -> None:
    images = torch.nn.functional.one_hot(questions.answers["image"].labels_NW[:, 0], 8).float()
    clips = torch.nn.functional.one_hot(questions.answers["audio"].labels_NW[:, 0], 2).float()
    for ranks in read_ranks(questions, images, clips).values():
        assert bool((ranks == 1).all())
    unsure = read_ranks(questions, torch.ones(len(images), 8) / 8, torch.ones(len(clips), 2) / 2)
    assert not any(bool((ranks == 1).any()) for name, ranks in unsure.items() if name != "text")
