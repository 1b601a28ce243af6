"""A model of declared modalities in use without its data: raw samples encoded as in evaluation, and scores."""

from __future__ import annotations

import io
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from user_shards import write_user_shards

import symile_m3
from symile_m3.errors import NotBuiltError, SourceError, TrainingError, UsageError
from symile_m3.modalities.declaration import Declaration, read_declaration
from symile_m3.modalities.encoded import EncodedSplit, encode_split
from symile_m3.modalities.evaluation import evaluate_declared
from symile_m3.modalities.loading import DeclaredModel, open_declared
from symile_m3.modalities.splits import open_splits
from symile_m3.modalities.training import train_declared
from symile_m3.objectives import clip_scores, symile_scores
from symile_m3.shards import decode_member
from symile_m3.standins import LEARNED, MEAN

MEDIA = """
[modalities.photo]
member = "photo.png"
shape = [3, 8, 8]
tower = "conv-image"
[modalities.sound]
member = "sound.wav"
seconds = 0.3
tower = "conv-audio"
[modalities.both]
member = ["ecg.npy", "json:labs"]
shape = [130]
tower = "mlp"
hidden = [8]
missing = true
[train]
dim = 16
steps = 4
batch_size = 12
missing_p = {photo = 0.3}
evaluations = 1
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards, and runs on two declarations."""
    root = write_user_shards(tmp_path_factory.mktemp("loading") / "data")
    first = read_declaration(root / "my.toml")
    train_declared(replace(first, config=replace(first.config, steps=8, dim=16)), root / "runs")
    data = (root / "my.toml").read_text().split("[modalities")[0]
    (root / "media.toml").write_text(data + MEDIA)
    train_declared(read_declaration(root / "media.toml"), root / "media", objectives=["clip"])
    return root


@pytest.fixture(scope="module")
def model(root: Path) -> DeclaredModel:
    return loaded(root / "runs" / "symile")


def loaded(run: Path) -> DeclaredModel:
    found = symile_m3.load(run)
    assert isinstance(found, DeclaredModel)
    return found


def split_of(found: DeclaredModel, root: Path, name: str = "my") -> EncodedSplit:
    """The test split as the evaluation ranks it."""
    data = read_declaration(root / f"{name}.toml").data
    sources = open_splits(Declaration(data=data, config=found.config))
    return encode_split(found._model.cpu(), sources["test"], found.config, data)


def members(found: DeclaredModel, root: Path, name: str = "my") -> list[dict[str, Any]]:
    """The test samples, decoded."""
    data = read_declaration(root / f"{name}.toml").data
    source = open_splits(Declaration(data=data, config=found.config))["test"]
    return [
        {member: decode_member(member, content) for member, content in source.read(i).items()}
        for i in range(len(source))
    ]


def raw_of(found: DeclaredModel, samples: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """Modality -> raw items, None for what is missing."""
    items: dict[str, list[Any]] = {}
    for modality in found.config.modalities:
        for sample in samples:
            values = [
                sample["json"][member[5:]] if member.startswith("json:") else sample.get(member)
                for member in modality.member
            ]
            item = None if any(value is None for value in values) else tuple(values)
            items.setdefault(modality.name, []).append(item[0] if item and len(item) == 1 else item)
    return items


@pytest.mark.parametrize(("run", "name"), [("runs/symile", "my"), ("runs/clip", "my"), ("media/clip", "media")])
def test_raw_samples_are_encoded_to_what_the_evaluation_ranks_by(root: Path, run: str, name: str) -> None:
    found = loaded(root / run)
    split = split_of(found, root, name)
    raw = raw_of(found, members(found, root, name))
    for modality in found.modalities:
        encoded = found.encode(modality, raw[modality])
        assert encoded.dtype == torch.float32
        assert not encoded.is_inference()  # so that something may be trained on it
        torch.testing.assert_close(encoded, split.reps[modality], atol=1e-5, rtol=1e-4)
    assert [item is None for item in raw["ecg" if name == "my" else "both"]].count(True) == 3


def test_ranks_are_those_of_the_evaluation(root: Path, model: DeclaredModel) -> None:
    samples = members(model, root)
    raw = raw_of(model, samples)
    classes = np.array([sample["json"]["class"] for sample in samples])
    for run, given in (("symile", ("ecg", "note", "age")), ("symile", ("note",)), ("clip", ("note",))):
        found = loaded(root / "runs" / run)
        _, best = found.rank(retrieve="xray", k=1, xray=raw["xray"], **{name: raw[name] for name in given})
        asked = f"xray={','.join(given)}"
        (question,) = evaluate_declared(root / "runs", retrieve=[asked], bootstrap=1)["questions"]
        right = classes[best[:, 0].numpy()] == classes
        assert right.mean() == pytest.approx(question["results"][run]["top1"]), (run, given)


def test_scores_are_those_of_the_objective(root: Path, model: DeclaredModel) -> None:
    raw = raw_of(model, members(model, root))
    reps = {name: model.encode(name, items) for name, items in raw.items()}
    wanted = symile_scores([reps[name][:3] for name in ("ecg", "note", "age")], reps["xray"])
    query = {name: raw[name][:3] for name in ("ecg", "note", "age")}
    torch.testing.assert_close(model.scores(retrieve="xray", xray=raw["xray"], **query), wanted)
    one = model.scores(retrieve="xray", xray=reps["xray"], ecg=raw["ecg"][0], note=raw["note"][:3], age=raw["age"][:3])
    torch.testing.assert_close(one[0], wanted[0])
    best, rows = model.rank(retrieve="xray", k=4, xray=np.stack(raw["xray"]), **query)
    torch.testing.assert_close(best, wanted.topk(4).values)
    assert torch.equal(wanted.topk(4).indices, rows)
    assert model.rank(retrieve="note", note=raw["note"], xray=reps["xray"][:2])[0].shape == (2, 24)


def test_what_is_missing_has_what_the_evaluation_puts_in_its_place(root: Path, model: DeclaredModel) -> None:
    raw = raw_of(model, members(model, root))
    reps = {name: model.encode(name, items) for name, items in raw.items()}
    assert model.standins == {"xray": MEAN, "ecg": LEARNED, "note": MEAN, "age": MEAN}
    fill = {name: rep.expand(24, -1) for name, rep in model._standins.items()}
    gone = [item is None for item in raw["ecg"]]
    torch.testing.assert_close(reps["ecg"][gone], fill["ecg"][:3], atol=1e-5, rtol=1e-4)
    found = model.scores(retrieve="xray", xray=raw["xray"], note=raw["note"])
    torch.testing.assert_close(found, symile_scores([fill["ecg"], reps["note"], fill["age"]], reps["xray"]))
    found = model.scores(retrieve="xray", xray=raw["xray"], ecg=raw["ecg"], note=[None, *raw["note"][1:]], age=20)
    age = model.encode("age", 20).expand(24, -1)
    torch.testing.assert_close(found[0], symile_scores([reps["ecg"], fill["note"], age], reps["xray"])[0])
    pairs = loaded(root / "media" / "clip")  # that has learned what is missing
    assert pairs.standins["photo"] == LEARNED


def test_clip_without_missing_ones_scores_the_pairs_it_is_given(root: Path, tmp_path: Path) -> None:
    declaration = read_declaration(root / "my.toml")
    xray, _, note, age = declaration.config.modalities
    config = replace(declaration.config, modalities=(xray, note, age), steps=2, dim=8, evaluations=1)
    train_declared(replace(declaration, config=config), tmp_path, objectives=["clip"])
    found = loaded(tmp_path / "clip")
    assert set(found.standins.values()) == {"nothing; its score is the cosine of the pair"}
    raw = raw_of(found, members(found, root))
    reps = {name: found.encode(name, items) for name, items in raw.items()}
    torch.testing.assert_close(
        found.scores(retrieve="xray", xray=reps["xray"], note=raw["note"]), clip_scores([reps["note"]], reps["xray"])
    )
    mean = found._standins["note"]
    torch.testing.assert_close(found.encode("note", [None, raw["note"][1]])[0], mean)


def test_every_form_of_an_item_is_taken(root: Path, model: DeclaredModel, tmp_path: Path) -> None:
    samples = members(model, root)
    array = samples[0]["xray.npy"]
    np.save(tmp_path / "a.npy", array)
    found = model.encode("xray", [array, tmp_path / "a.npy", str(tmp_path / "a.npy"), torch.from_numpy(array.copy())])
    torch.testing.assert_close(found, found[:1].expand(4, -1))
    for one in (array, tmp_path / "a.npy", array[None], [array]):
        torch.testing.assert_close(model.encode("xray", one), found[:1])
    assert model.encode("age", 30).shape == model.encode("age", np.float32(30)).shape == (1, 16)
    assert model.encode("age", [30, 40.5]).shape == (2, 16)
    assert model.encode("note", "finding aaaa").shape == (1, 16)
    assert model.encode("note", []).shape == (0, 16)
    media = loaded(root / "media" / "clip")
    samples = members(media, root, "media")
    pixels, (wave, rate_hz) = samples[0]["photo.png"], samples[0]["sound.wav"]
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    (tmp_path / "a.png").write_bytes(buffer.getvalue())
    photos = media.encode("photo", [pixels, Image.fromarray(pixels), tmp_path / "a.png", str(tmp_path / "a.png")])
    torch.testing.assert_close(photos, photos[:1].expand(4, -1))
    sounds = media.encode("sound", [(wave, rate_hz), (torch.from_numpy(wave), rate_hz)])
    torch.testing.assert_close(sounds[0], sounds[1])
    torch.testing.assert_close(media.encode("sound", (wave, rate_hz)), sounds[:1])


@pytest.mark.parametrize(
    ("modality", "item", "says"),
    [
        ("xray", np.zeros((32, 32)), "xray, item 0 of 1: xray.npy has shape [32, 32], declared is [1, 32, 32]"),
        ("xray", [np.zeros((1, 32, 32)), np.zeros(3)], "xray, item 1 of 2: xray.npy has shape [3], declared is"),
        ("xray", [np.full((1, 32, 32), np.nan)], "xray, item 0 of 1: xray.npy holds NaN or infinities"),
        ("xray", ["nowhere.npy"], "nowhere.npy: cannot be read (No such file"),
        ("xray", object(), "xray: object: give an array or a file of one, or a list of these"),
        ("note", [3], "note, item 0 of 1: int: give a string"),
        ("age", ["old"], "age, item 0 of 1: json:age holds no numbers"),
        ("photo", np.zeros((8, 8, 3)), "photo, item 0 of 1: pixels of float64 [8, 8, 3]: give uint8"),
        ("photo", [3], "photo, item 0 of 1: int: give a file, an image of Pillow's or pixels"),
        ("photo", __file__, "test_declared_loading.py: not an image that can be decoded"),
        ("sound", [np.zeros(8)], "sound, item 0 of 1: ndarray: give a file or (waveform, sample rate in Hz)"),
        ("sound", (np.zeros(0, np.float32), 16_000), "sound, item 0 of 1: a waveform without samples"),
        ("both", [np.zeros(130)], "both, item 0 of 1: give a tuple of 2 arrays, ecg.npy and json:labs"),
        ("both", (np.zeros((64, 2)), [1]), "both, item 0 of 1: ecg.npy and json:labs has shape [129], declared"),
    ],
)
def test_an_item_that_cannot_be_used_is_one_line(
    root: Path, model: DeclaredModel, modality: str, item: Any, says: str
) -> None:
    found = model if modality in model.modalities else loaded(root / "media" / "clip")
    with pytest.raises(SourceError, match=re.escape(says)) as raised:
        found.encode(modality, item)
    assert "\n" not in str(raised.value)


def test_questions_that_make_no_sense(model: DeclaredModel) -> None:
    rep = torch.zeros(3, 16)
    for asked, says in (
        ({"retrieve": "ct", "xray": rep}, "retrieve='ct': no modality; known: xray, ecg, note, age"),
        ({"retrieve": "xray", "xray": rep, "ct": rep}, "ct=: no modality; known: xray, ecg, note, age"),
        ({"retrieve": "xray", "note": "finding"}, "no candidates: give xray="),
        ({"retrieve": "xray", "xray": rep}, "no query: give ecg= or note= or age=, or several"),
        ({"retrieve": "xray", "xray": rep, "ecg": rep, "note": rep[:2]}, "queries of 3 of ecg and 2 of note"),
        ({"retrieve": "xray", "xray": rep[:, :3], "ecg": rep}, "xray: representations are (N, 16), not (3, 3)"),
        ({"retrieve": "note", "note": ["one", None], "ecg": rep}, "note: a candidate is missing (None); leave it out"),
        ({"retrieve": "xray", "xray": rep, "ecg": rep, "k": 0}, "k = 0: at least 1"),
    ):
        with pytest.raises(UsageError, match=re.escape(says)):
            model.rank(**asked)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="'ct': no modality; known: xray"):
        model.encode("ct", rep)


def test_the_data_are_not_needed_and_damage_is_named(root: Path, model: DeclaredModel, tmp_path: Path) -> None:
    alone = shutil.copytree(root / "runs" / "symile", tmp_path / "alone")
    for name in ("last.safetensors", "last.state", "run.json", "data.json", "metrics.csv"):
        (alone / name).unlink()
    assert torch.equal(loaded(alone).encode("age", 7), model.encode("age", 7))
    assert repr(model).startswith("DeclaredModel('")
    assert model.dataset["samples"] == {"train": 64, "val": 16, "test": 24}
    record = json.loads((alone / "config.json").read_text())
    (alone / "config.json").write_text(json.dumps({**record, "dim": 8}))
    with pytest.raises(TrainingError, match=r"best\.safetensors is of other towers than"):
        symile_m3.load(alone)
    (alone / "model.json").unlink()
    with pytest.raises(NotBuiltError, match=r"has no model\.json"):
        symile_m3.load(alone)


def test_a_finished_run_gets_what_it_lacks_when_it_is_trained_again(root: Path, tmp_path: Path) -> None:
    again = shutil.copytree(root / "media", tmp_path / "media")
    before = {path.name: path.read_bytes() for path in (again / "clip").iterdir()}
    (again / "clip" / "model.json").unlink()
    train_declared(read_declaration(root / "media.toml"), again, objectives=["clip"])
    assert {path.name: path.read_bytes() for path in (again / "clip").iterdir()} == before


def test_towers_that_are_code_are_not_run_on_the_word_of_a_download(root: Path, tmp_path: Path) -> None:
    run = shutil.copytree(root / "runs" / "clip", tmp_path / "clip")
    record = json.loads((run / "config.json").read_text())
    record["modalities"][0]["tower"] = "no_such:tower"
    (run / "config.json").write_text(json.dumps(record))
    with pytest.raises(UsageError, match=r"the tower no_such:tower is code of its author's"):
        open_declared(run, own_towers=False)
    with pytest.raises(UsageError, match="no module no_such; it must be importable from here"):
        open_declared(run)
