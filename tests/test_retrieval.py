"""Retrieval: what `retrieve` says of each query, against every query and image taken one by one."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from random_model import random_model, standin
from torch import Tensor

from symile_m3.features import Features, open_dataset
from symile_m3.model import Inputs, Model
from symile_m3.objectives import OBJECTIVES, get_objective
from symile_m3.retrieval import QUERY, Retrieval, retrieve
from symile_m3.shards import DatasetReader, decode_json
from symile_m3.towers.text import Tokeniser

CLASSES, IMAGES, SIZES = 5, 12, (9, 4, 1)
WORDS = ["cat", "dog", "γάτα", "σκύλος", "bird"]
TOKENISER = Tokeniser(WORDS, buckets=8)
NAMES = sorted(OBJECTIVES)


def model_of(objective: str, seed: int = 0) -> Model:
    return random_model(objective, TOKENISER.rows, seed=seed)


def random_task(seed: int = 0) -> Retrieval:
    """Queries in batches of different sizes."""
    generator = torch.Generator().manual_seed(seed)
    total = sum(SIZES)
    texts = ["_".join([WORDS[i % 5], WORDS[i * 3 % 5]]) for i in range(total)]
    audio = torch.randn(total, 4, generator=generator)
    batches, start = [], 0
    for size in SIZES:
        rows = slice(start, start + size)
        batches.append(Inputs(given={"audio": (audio[rows],), "text": (TOKENISER(texts[rows]),)}))
        start += size
    return Retrieval(
        batches=tuple(batches),
        image_NF=torch.randn(IMAGES, 6, generator=generator),
        candidate_class_ids=torch.arange(IMAGES) % CLASSES,
        class_ids=torch.randint(CLASSES, (total,), generator=generator),
        language_ids=torch.zeros(total, dtype=torch.long),
        keys=tuple(f"test-{i:08d}" for i in range(total)),
    )


def cosine(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b)


def naive_hits(
    model: Model, objective: str, task: Retrieval, k: int, replaced: dict[str, tuple[Tensor, Tensor]] | None = None
) -> list[bool]:
    """Query by query and image by image; `replaced`: modality -> (mask, representation in its place)."""
    model.eval()
    with torch.no_grad():
        images = [model.encode("image", Inputs(given={"image": (image[None],)}))[0].tolist() for image in task.image_NF]
        reps = {name: torch.cat([model.encode(name, batch) for batch in task.batches]) for name in QUERY}
    score_of = model.scores(get_objective(objective), "image", QUERY)

    def pair(*vectors: list[float]) -> float:
        *query, image = (torch.tensor([vector]) for vector in vectors)
        return float(score_of(query, image).detach())

    for name, (mask, rep) in (replaced or {}).items():
        reps[name][mask] = rep.detach()
    hits = []
    for q in range(len(task)):
        audio, text = reps["audio"][q].tolist(), reps["text"][q].tolist()
        scores = [
            sum(a * t * i for a, t, i in zip(audio, text, image, strict=True))
            if objective == "symile"
            else cosine(audio, image) + cosine(text, image)
            if objective == "clip"
            else pair(audio, text, image)
            for image in images
        ]
        best = sorted(range(IMAGES), key=lambda n: -scores[n])[:k]
        hits.append(any(int(task.candidate_class_ids[n]) == int(task.class_ids[q]) for n in best))
    return hits


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("seed", range(4))
def test_hits_are_those_of_each_query_alone(name: str, seed: int) -> None:
    model, task = model_of(name, seed), random_task(seed)
    ks = (1, 2, 5, IMAGES)
    hits = retrieve(model.train(), get_objective(name), task, ks)
    assert list(hits) == list(ks)
    for k in ks:
        assert hits[k].tolist() == naive_hits(model, name, task, k)
    assert 0 < int(hits[2].sum()) < len(task)


@pytest.mark.parametrize("name", NAMES)
def test_more_candidates_never_lose_a_hit(name: str) -> None:
    model, task = model_of(name), random_task()
    hits = retrieve(model, get_objective(name), task, range(1, IMAGES + 4))
    for k in range(1, IMAGES + 3):
        assert bool((hits[k] <= hits[k + 1]).all())
    assert bool(hits[IMAGES].all())  # every class has an image
    assert torch.equal(hits[IMAGES], hits[IMAGES + 3])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("modalities", [("audio",), ("text",), ("audio", "text")])
def test_what_is_missing_is_replaced(name: str, modalities: tuple[str, ...]) -> None:
    model, task = model_of(name), random_task()
    missing = {name: torch.arange(len(task)) % 3 == i for i, name in enumerate(modalities)}
    fill = {name: torch.randn(8, generator=torch.Generator().manual_seed(9)) for name in modalities}
    learned = retrieve(model, get_objective(name), task, (2,), missing=missing)[2]
    embeddings = {modality: (mask, standin(model, modality)) for modality, mask in missing.items()}
    assert learned.tolist() == naive_hits(model, name, task, 2, embeddings)
    filled = retrieve(model, get_objective(name), task, (2,), missing=missing, fill=fill)[2]
    given = {modality: (mask, fill[modality]) for modality, mask in missing.items()}
    assert filled.tolist() == naive_hits(model, name, task, 2, given)
    nothing = {modality: torch.zeros(len(task), dtype=torch.bool) for modality in QUERY}
    assert torch.equal(
        retrieve(model, get_objective(name), task, (2,), missing=nothing)[2],
        retrieve(model, get_objective(name), task, (2,))[2],
    )


def test_masks_follow_the_queries_through_the_batches() -> None:
    task = random_task()
    mask = torch.arange(len(task)) % 2 == 0
    parts = list(task.masked({"audio": mask}))
    assert [len(part.missing["audio"]) for part in parts if part.missing] == list(SIZES)
    assert torch.equal(torch.cat([part.missing["audio"] for part in parts if part.missing]), mask)


def test_a_model_that_knows_the_answer_is_always_right() -> None:
    task = random_task()
    model = model_of("symile").eval()
    classes = torch.nn.functional.one_hot(task.candidate_class_ids, 8).float()
    right = torch.nn.functional.one_hot(task.class_ids, 8).float()

    class Knowing(Model):
        def encode(self, modality: str, inputs: Inputs) -> Tensor:
            if modality == "image":
                return classes
            start = next(i for i, batch in enumerate(task.batches) if batch is inputs)
            rows = right[sum(SIZES[:start]) : sum(SIZES[: start + 1])]
            return rows if modality == "text" else torch.ones_like(rows)

    model.__class__ = Knowing
    for objective in (found for found in map(get_objective, OBJECTIVES) if not found.role_scores):
        assert bool(retrieve(model, objective, task)[1].all())


def test_the_task_of_a_split_is_its_samples_and_images(tiny_dataset: Path) -> None:
    dataset = open_dataset(tiny_dataset)
    features = Features(
        image_NVF=torch.randn(len(dataset.images.row_of), 2, 6).half(),
        clip_NF=torch.randn(len(dataset.clips.row_of), 4).half(),
        clip_mask_NT=None,
    )
    tokeniser = Tokeniser(["x"], buckets=50)
    task = Retrieval.of_split(dataset, features, "test", tokeniser)
    reader = DatasetReader(tiny_dataset, "test")
    records = [decode_json(reader.read(i)["json"]) for i in range(len(reader))]
    assert len(task) == len(records) == 16
    assert list(task.keys) == [reader.key(i) for i in range(16)]
    assert task.class_ids.tolist() == [record["class_id"] for record in records]
    languages = dataset.plan.lexicon.languages
    assert [languages[i] for i in task.language_ids.tolist()] == [record["lang"] for record in records]
    assert len(task.batches) == 1
    rows = [dataset.clips.row_of[record["clip_id"]] for record in records]
    assert torch.equal(task.batches[0].given["audio"][0], features.clip_NF[rows].float())
    texts = tokeniser(["_".join(record["words"]) for record in records])
    assert torch.equal(task.batches[0].given["text"][0].row_ids, texts.row_ids)
    used = {record["image_id"] for record in records}
    images = [image.id for image in dataset.plan.images if image.id in used]
    assert len(task.image_NF) == len(images) == len(used)
    candidates = [dataset.images.row_of[image_id] for image_id in images]
    assert torch.equal(task.image_NF, features.image_NVF[candidates, 0].float())
    class_of = {record["image_id"]: record["class_id"] for record in records}
    assert task.candidate_class_ids.tolist() == [class_of[image_id] for image_id in images]
