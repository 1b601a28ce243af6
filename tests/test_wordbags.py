"""Soft targets from texts: how alike samples are by their words, in training on triples and on declared modalities."""

from __future__ import annotations

import json
import math
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from user_shards import write_user_shards

import symile_m3.wordbags
from symile_m3.batches import Batch, open_loader
from symile_m3.comparison.question import recipe_for, recipe_key
from symile_m3.errors import TrainingError, UsageError
from symile_m3.evaluate import evaluate
from symile_m3.features import Dataset, FeatureConfig, open_dataset
from symile_m3.modalities.declaration import Declaration, read_declaration
from symile_m3.modalities.splits import open_splits
from symile_m3.modalities.task import DeclaredTask
from symile_m3.modalities.training import train_declared
from symile_m3.model import ModelConfig
from symile_m3.objectives import soft_loss
from symile_m3.recipe import RunOptions, TrainConfig, naming
from symile_m3.redraw import redraw_texts
from symile_m3.rundir import read_config
from symile_m3.shards import DatasetReader, decode_json
from symile_m3.towers.text import Tokeniser
from symile_m3.train import train
from symile_m3.wordbags import text_similarity, word_numbers

SMALL = TrainConfig(
    features=FeatureConfig(image_views=2, audio_steps=4),
    model=ModelConfig(dim=16, image_hidden=16, text_buckets=16),
    steps=4,
    batch_size=16,
    evaluations=2,
)
TEXTS = replace(SMALL, soft_targets="texts")


@pytest.fixture(scope="module")
def data(tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shutil.copytree(tiny_dataset, tmp_path_factory.mktemp("wordbags") / "data")


@pytest.fixture(scope="module")
def dataset(data: Path) -> Dataset:
    return open_dataset(data)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_user_shards(tmp_path_factory.mktemp("wordbags") / "declared")


def naive_similarity(texts: Sequence[Sequence[str]]) -> list[list[float]]:
    """Pair by pair: what two bags share, over their lengths."""
    bags = [Counter(text) for text in texts]

    def cosine(one: Counter[str], other: Counter[str]) -> float:
        lengths = math.prod(sum(count**2 for count in bag.values()) for bag in (one, other))
        return sum(count * other[word] for word, count in one.items()) / math.sqrt(lengths) if lengths else 0.0

    return [[1.0 if i == j else cosine(one, other) for j, other in enumerate(bags)] for i, one in enumerate(bags)]


@given(
    st.lists(st.lists(st.sampled_from("abcdefg"), max_size=5), min_size=1, max_size=7), st.sampled_from([1, 3, 4096])
)
@settings(max_examples=60, deadline=None)
def test_texts_are_alike_as_their_bags_of_words_are(texts: list[list[str]], at_a_time: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(symile_m3.wordbags, "_AT_A_TIME", at_a_time)
        found = text_similarity(word_numbers(texts))
    torch.testing.assert_close(found, torch.tensor(naive_similarity(texts)), atol=1e-6, rtol=1e-6)


def _in_one_of_two(rank: int, store: str, out: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    shares = [[["a", "b"], ["b"]], [["a", "b", "b", "c"], []]]  # the longest text of one is longer than of the other
    torch.save(text_similarity(word_numbers(shares[rank]), dist.group.WORLD), f"{out}-{rank}")
    dist.destroy_process_group()


def test_processes_see_the_texts_of_all(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(_in_one_of_two, (str(tmp_path / "store"), str(tmp_path / "out")), nprocs=2)
    found = torch.cat([torch.load(tmp_path / f"out-{rank}") for rank in range(2)])
    torch.testing.assert_close(found, text_similarity(word_numbers([["a", "b"], ["b"], ["a", "b", "b", "c"], []])))


# ---- the texts of a batch


@pytest.mark.parametrize("redraw", [True, False])
def test_a_batch_has_the_words_of_the_texts_that_are_not_hidden(redraw: bool, data: Path, dataset: Dataset) -> None:
    reader = DatasetReader(data, "train")
    records = {reader.key(i): decode_json(reader.read(i)["json"]) for i in range(len(reader))}
    loader = open_loader(
        dataset,
        "train",
        tokeniser=Tokeniser(["x"], buckets=5),
        batch_size=16,
        seed=1,
        training=True,
        redraw=redraw,
        missing_p={"text": 0.4},
        words=True,
    )
    batch: Batch = next(iter(loader))
    texts = (
        redraw_texts(dataset.plan, batch.keys, batch.class_ids.numpy(), batch.language_ids.numpy(), seed=1, epoch=0)
        if redraw
        else ["_".join(records[key]["words"]) for key in batch.keys]
    )
    hidden = batch.missing["text"].tolist()
    assert 0 < sum(hidden) < 16
    assert batch.words is not None
    shown = [[] if gone else text.split("_") for text, gone in zip(texts, hidden, strict=True)]
    assert torch.equal(batch.words, word_numbers(shown))


def test_words_of_all_declared_texts_count_in_small_letters(root: Path, tmp_path: Path) -> None:
    text = (root / "my.toml").read_text().replace("missing = true ", "missing = true\n#")
    text = text.replace("[train]", '[modalities.kind]\nmember = "json:class"\ntower = "embedding-bag"\n[train]')
    (root / "two.toml").write_text(text + 'soft_targets = "texts"\n')
    declaration = read_declaration(root / "two.toml")
    sources = open_splits(declaration)
    batch = next(iter(DeclaredTask(declaration, sources).loader(rank=0, world=1)))
    kinds = [int(label.removeprefix("kind-")) for label in batch.labels]
    words = [["finding", "abcd"[kind] * 4, "kind", str(kind)] for kind in kinds]
    assert batch.words is not None
    torch.testing.assert_close(text_similarity(batch.words), torch.tensor(naive_similarity(words)))


# ---- training


class Recorded:
    """The loss of soft targets, which notes what it is called with."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, loss: Callable[..., Tensor] = soft_loss) -> None:
        self.calls: list[dict[str, Any]] = []
        objective = symile_m3.objectives.registry._WITHOUT_NEGATIVES["soft"]

        def noting(reps: Sequence[Tensor], scale: Tensor, **options: Any) -> Tensor:
            self.calls.append(options)
            return objective.loss(reps, scale, **options)

        patched = {**symile_m3.objectives.registry._WITHOUT_NEGATIVES, "soft": replace(objective, loss=noting)}
        monkeypatch.setattr(symile_m3.objectives.registry, "_WITHOUT_NEGATIVES", patched)


@pytest.mark.parametrize("micro_batch", [0, 5])
def test_the_loss_gets_the_similarity_of_the_whole_batch(
    micro_batch: int, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = Recorded(monkeypatch)
    options = RunOptions(micro_batch=micro_batch, portable=False)
    train(data, tmp_path, objectives=["soft"], config=replace(TEXTS, steps=1), options=options)
    (call,) = seen.calls
    assert call.get("labels") is None
    words = {"tokeniser": Tokeniser(["x"], buckets=5), "batch_size": 16, "seed": 0, "training": True, "redraw": True}
    batch: Batch = next(iter(open_loader(open_dataset(data), "train", words=True, **words)))
    assert batch.words is not None
    assert len(call["similarity"]) == 3
    for similarity_BN in call["similarity"]:
        assert torch.equal(similarity_BN, text_similarity(batch.words))
    assert 0.5 in text_similarity(batch.words)  # some texts share one of their two words


def test_other_targets_train_to_other_weights_and_are_evaluated(data: Path, tmp_path: Path) -> None:
    losses = []
    for config in (SMALL, TEXTS):
        runs = tmp_path / config.soft_targets
        train(data, runs, objectives=["soft", "symile"], config=config)
        assert read_config(runs / "soft")[0] == config
        losses.append([json.loads(line)["loss"] for line in (runs / "soft" / "metrics.jsonl").read_text().splitlines()])
    assert losses[0] != losses[1]
    report = evaluate(data, tmp_path / "texts", bootstrap=10)
    assert list(report["results"]) == ["symile", "soft"]


def test_declared_modalities_train_on_their_texts(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = Recorded(monkeypatch)
    declared = read_declaration(root / "my.toml")
    config = replace(declared.config, soft_targets="texts", steps=2, evaluations=1)
    train_declared(Declaration(data=declared.data, config=config), tmp_path, objectives=["soft"])
    assert len(seen.calls) == 2
    for call in seen.calls:
        (values,) = {tuple(one.unique().tolist()) for one in call["similarity"]}
        assert values == pytest.approx((0.5, 1.0))  # "finding aaaa" and "finding bbbb", or the same
        assert len(call["similarity"]) == 4


# ---- recipes


def test_a_run_from_before_there_were_such_targets_goes_on(data: Path, tmp_path: Path) -> None:
    train(data, tmp_path, objectives=["soft"], config=SMALL)
    path = tmp_path / "soft" / "config.json"
    record = json.loads(path.read_text())
    assert record.pop("soft_targets") == "labels"
    path.write_text(json.dumps(record))
    assert read_config(path.parent)[0] == SMALL
    (summary,) = train(data, tmp_path, objectives=["soft"], config=SMALL)
    assert summary.steps == 4
    with pytest.raises(TrainingError, match=r"another recipe: soft_targets labels \(asked: texts\)"):
        train(data, tmp_path, objectives=["soft"], config=TEXTS)
    train(data, tmp_path, objectives=["soft"], config=TEXTS, overwrite=True)
    with pytest.raises(TrainingError, match=r"another recipe: soft_targets texts \(asked: labels\)"):
        train(data, tmp_path, objectives=["soft"], config=SMALL)


def test_comparisons_of_runs_that_do_not_use_it_keep_their_names() -> None:
    assert "soft_targets" not in naming(SMALL)
    assert naming(TEXTS)["soft_targets"] == "texts"
    assert recipe_key(TrainConfig()) == DEFAULT_KEY
    assert recipe_key(SMALL) != recipe_key(TEXTS)
    assert recipe_for("symile", TEXTS) == SMALL
    assert recipe_for("soft", TEXTS) == TEXTS


DEFAULT_KEY = "831db22394"
"""What a comparison called the default recipe before there was the setting."""


def test_wrong_targets_are_refused(data: Path, root: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^soft_targets words: give labels or texts$"):
        TrainConfig().with_settings(["soft_targets=words"])
    with pytest.raises(UsageError, match=r"^soft_targets texts: soft takes them, not symile and clip; leave them out$"):
        train(data, tmp_path, config=TEXTS)
    declared = read_declaration(root / "my.toml")
    config = replace(declared.config, soft_targets="texts")
    with pytest.raises(UsageError, match=r"^soft_targets texts: soft takes them, not clip; leave them out$"):
        train_declared(replace(declared, config=config), tmp_path, objectives=["clip"])
    without = tuple(modality for modality in config.modalities if modality.kind != "text")
    with pytest.raises(UsageError, match=r"^soft_targets texts: no modality is a text; give labels$"):
        replace(config, modalities=without)
