"""A trained model in use without its dataset: raw media encoded as in evaluation, scores, and what cannot be opened."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import tiny_models
import torch
from PIL import Image

import symile_m3
from symile_m3.assembly import new_tokeniser
from symile_m3.errors import NotBuiltError, SourceError, TrainingError, UsageError
from symile_m3.features import Dataset, FeatureConfig, load_features, open_dataset
from symile_m3.loading import TrainedModel
from symile_m3.measures import Asked, measure
from symile_m3.model import ModelConfig
from symile_m3.objectives import clip_scores, get_objective, symile_scores
from symile_m3.progress import NoProgress
from symile_m3.questions import Questions
from symile_m3.recipe import TrainConfig
from symile_m3.shards import DatasetReader, decode_audio, decode_image
from symile_m3.standins import LEARNED, MEAN, MEAN_UNIT, mean_representations
from symile_m3.train import train


@pytest.fixture(scope="module")
def model(trained_runs: Path) -> TrainedModel:
    return symile_m3.load(trained_runs / "symile")


@pytest.fixture(scope="module")
def dataset(trained_data: Path) -> Dataset:
    return open_dataset(trained_data)


def members(dataset: Dataset, split: str = "test") -> list[dict[str, bytes]]:
    reader = dataset.readers[split]
    return [reader.read(i, ("jpg", "flac", "txt")) for i in range(len(reader))]


def check_against_evaluation(found: TrainedModel, dataset: Dataset) -> None:
    """Raw media of the test split are encoded to what evaluation ranks by."""
    features = load_features(dataset, found.config.features, NoProgress())
    questions = Questions.of_split(dataset, features, "test", new_tokeniser(dataset, found.config))
    wanted = questions.encode(found._model.cpu()).queries
    rows = torch.arange(len(questions))
    raw = members(dataset)
    for modality, encoded in (
        ("image", found.encode_images([decode_image(item["jpg"]) for item in raw])),
        ("audio", found.encode_audio([decode_audio(item["flac"]) for item in raw])),
        ("text", found.encode_texts([item["txt"].decode() for item in raw])),
    ):
        assert encoded.dtype == torch.float32
        assert not encoded.is_inference()  # so that something may be trained on it
        torch.testing.assert_close(encoded, wanted[modality][rows], atol=2e-3, rtol=1e-3)


def test_a_run_encodes_raw_media_as_evaluation_does(model: TrainedModel, dataset: Dataset) -> None:
    check_against_evaluation(model, dataset)
    assert model.languages == ("el", "en")
    assert set(model.vocabulary) == {name for row in dataset.plan.lexicon.names for name in row}


@pytest.mark.parametrize("kind", ["scratch", "frozen", "train"])
def test_so_do_runs_of_other_towers(
    kind: str, trained_data: Path, dataset: Dataset, tmp_path: Path, short_recipe: TrainConfig
) -> None:
    if kind == "scratch":
        config = replace(short_recipe, features=replace(short_recipe.features, audio="conv:scratch"))
    else:
        tiny_models.save_clip(tmp_path / "clip")
        tiny_models.save_whisper(tmp_path / "whisper")
        tiny_models.save_xlmr(tmp_path / "xlmr")
        config = replace(
            short_recipe,
            features=FeatureConfig(
                image=f"clip:{tmp_path}/clip:{kind}", audio=f"whisper:{tmp_path}/whisper:{kind}", image_views=1
            ),
            model=ModelConfig(text=f"xlmr:{tmp_path}/xlmr", dim=16, image_hidden=0, audio_hidden=0),
            steps=2,
            lr=1e-3,
        )
    train(trained_data, tmp_path / "runs", objectives=["symile"], config=config)
    found = symile_m3.load(tmp_path / "runs" / "symile")
    check_against_evaluation(found, dataset)
    if kind != "scratch":
        assert found.vocabulary == ()
        assert found.encode_texts("whatever").shape == (1, 16)


def test_every_form_of_a_medium_is_taken(model: TrainedModel, dataset: Dataset, tmp_path: Path) -> None:
    raw = members(dataset)[0]
    (tmp_path / "a.jpg").write_bytes(raw["jpg"])
    (tmp_path / "a.flac").write_bytes(raw["flac"])
    pixels = decode_image(raw["jpg"])
    images = model.encode_images([tmp_path / "a.jpg", str(tmp_path / "a.jpg"), pixels, Image.fromarray(pixels)])
    torch.testing.assert_close(images, images[:1].expand(4, -1), atol=1e-4, rtol=1e-4)
    assert torch.equal(model.encode_images(tmp_path / "a.jpg"), model.encode_images([tmp_path / "a.jpg"]))
    samples, rate_hz = decode_audio(raw["flac"])
    clips = model.encode_audio([tmp_path / "a.flac", (samples, rate_hz), (torch.from_numpy(samples), rate_hz)])
    torch.testing.assert_close(clips, clips[:1].expand(3, -1), atol=1e-4, rtol=1e-4)
    assert torch.equal(model.encode_audio((samples, rate_hz)), model.encode_audio([(samples, rate_hz)]))
    assert torch.equal(model.encode_texts(raw["txt"].decode()), model.encode_texts([raw["txt"].decode()]))
    assert model.encode_texts([]).shape == (0, 32)


def test_images_are_upright_and_square(model: TrainedModel, dataset: Dataset, tmp_path: Path) -> None:
    pixels = decode_image(members(dataset)[0]["jpg"])
    image = Image.fromarray(pixels)
    exif = image.getexif()
    exif[0x0112] = 6
    image.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif)
    wide = np.full((len(pixels), 3 * len(pixels), 3), 90, np.uint8)
    wide[:, len(pixels) : 2 * len(pixels)] = pixels
    found = model.encode_images([pixels, tmp_path / "turned.png", wide])
    torch.testing.assert_close(found, found[:1].expand(3, -1), atol=1e-3, rtol=1e-3)


def test_a_recording_is_prepared_as_clips_are(model: TrainedModel, dataset: Dataset, tmp_path: Path) -> None:
    samples, rate_hz = decode_audio(members(dataset)[0]["flac"])
    silence = np.zeros(rate_hz // 2, np.float32)
    framed = np.concatenate([silence, samples, silence])
    quiet = 0.05 * np.stack([framed, framed], axis=1)
    soundfile.write(tmp_path / "quiet.wav", quiet, rate_hz, subtype="FLOAT")
    plain, found = model.encode_audio([(samples, rate_hz), tmp_path / "quiet.wav"])
    cosine = torch.nn.functional.cosine_similarity(plain, found, dim=0)
    assert cosine > 0.999


def test_another_rate_sounds_the_same(model: TrainedModel, dataset: Dataset) -> None:
    import soxr

    samples, rate_hz = decode_audio(members(dataset)[0]["flac"])
    faster = soxr.resample(samples, rate_hz, 48_000, quality="HQ")
    plain, found = model.encode_audio([(samples, rate_hz), (faster, 48_000)])
    assert torch.nn.functional.cosine_similarity(plain, found, dim=0) > 0.99


def test_scores_are_those_of_the_objective(trained_runs: Path, model: TrainedModel, dataset: Dataset) -> None:
    raw = members(dataset)
    images, clips = [decode_image(item["jpg"]) for item in raw], [decode_audio(item["flac"]) for item in raw]
    texts = [item["txt"].decode() for item in raw]
    reps = {"image": model.encode_images(images), "audio": model.encode_audio(clips), "text": model.encode_texts(texts)}
    from_raw = model.scores(image=images, audio=clips[:3], text=texts[:3])
    assert from_raw.shape == (3, len(images))
    wanted = symile_scores([model.encode_audio(clips[:3]), model.encode_texts(texts[:3])], reps["image"])
    torch.testing.assert_close(from_raw, wanted)
    mixed = model.scores(image=reps["image"], audio=clips[:3], text=texts[:3])
    torch.testing.assert_close(mixed, wanted)
    one_clip = model.scores(image=reps["image"], audio=clips[0], text=texts[:3])
    first = [model.encode_audio(clips[0]), model.encode_texts(texts[:3])]
    torch.testing.assert_close(one_clip, symile_scores([first[0].expand(3, -1), first[1]], reps["image"]))
    # Features are kept in half precision: with other neighbours in its batch one may be rounded the other way.
    torch.testing.assert_close(one_clip[0], wanted[0], atol=2e-3, rtol=1e-3)
    wanted = symile_scores([reps["audio"][:3], reps["text"][:3]], reps["image"])
    found = model.scores(image=reps["image"][:2], audio=reps["audio"][:2], text=reps["text"], retrieve="text")
    torch.testing.assert_close(found, symile_scores([reps["image"][:2], reps["audio"][:2]], reps["text"]))
    best, rows = model.rank(image=reps["image"], audio=reps["audio"][:3], text=reps["text"][:3], k=4)
    assert torch.equal(best, wanted.topk(4).values)
    assert torch.equal(wanted.gather(1, rows), best)
    assert model.rank(image=reps["image"], text=reps["text"][:1])[1].shape == (1, len(images))
    other = symile_m3.load(trained_runs / "clip")
    reps = {"image": other.encode_images(images), "audio": other.encode_audio(clips), "text": other.encode_texts(texts)}
    torch.testing.assert_close(other.scores(**reps), clip_scores([reps["audio"], reps["text"]], reps["image"]))
    assert set(other.standins.values()) == {"nothing; its score is the cosine of the pair"}
    torch.testing.assert_close(
        other.scores(image=reps["image"], text=reps["text"]), clip_scores([reps["text"]], reps["image"])
    )


def test_a_missing_modality_is_replaced_by_its_mean(model: TrainedModel, dataset: Dataset) -> None:
    features = load_features(dataset, model.config.features, NoProgress())
    tokeniser = new_tokeniser(dataset, model.config)
    questions = Questions.of_split(dataset, features, "test", tokeniser)
    objective = get_objective("symile")
    means = mean_representations(model._model.cpu(), objective, questions, tokeniser, ("image", "audio", "text"))
    raw = members(dataset)
    images, texts = [decode_image(item["jpg"]) for item in raw], [item["txt"].decode() for item in raw]
    found = model.scores(image=images, text=texts)
    audio = means["audio"].expand(len(texts), -1)
    wanted = symile_scores([audio, model.encode_texts(texts)], model.encode_images(images))
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-3)
    assert set(model.standins.values()) == {MEAN}


def test_of_very_many_samples_eval_and_load_take_the_same_and_say_so(
    trained_data: Path, dataset: Dataset, tmp_path: Path, short_recipe: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("symile_m3.standins.MOST", 16)
    train(trained_data, tmp_path, objectives=["symile"], config=short_recipe)
    found = symile_m3.load(tmp_path / "symile")
    assert set(found.standins.values()) == {f"{MEAN} (over 16 of 64 samples)"}
    features = load_features(dataset, short_recipe.features, NoProgress())
    tokeniser = new_tokeniser(dataset, short_recipe)
    questions = Questions.of_split(dataset, features, "test", tokeniser)
    asked = Asked(missing=(0.5,))
    model = found._model.cpu()
    assert measure(model, found._objective, questions, tokeniser, asked).fill == found.standins["audio"]
    means = mean_representations(model, found._objective, questions, tokeniser, ("image", "audio", "text"))
    torch.testing.assert_close(means, dict(found._portable.standins))
    reader = DatasetReader(trained_data, "train")
    texts = [reader.read(i)["txt"].decode() for i in range(len(reader))]
    torch.testing.assert_close(means["text"], found.encode_texts(texts[:16]).mean(dim=0))
    assert not torch.allclose(means["text"], found.encode_texts(texts).mean(dim=0))


def test_or_by_what_the_model_has_learned(
    trained_data: Path, dataset: Dataset, tmp_path: Path, short_recipe: TrainConfig
) -> None:
    config = replace(short_recipe, missing_p={"audio": 0.4})
    train(trained_data, tmp_path, objectives=["clip"], config=config)
    found = symile_m3.load(tmp_path / "clip")
    assert found.standins == {"image": MEAN_UNIT, "audio": LEARNED, "text": MEAN_UNIT}
    raw = members(dataset)
    images, texts = [decode_image(item["jpg"]) for item in raw], [item["txt"].decode() for item in raw]
    learned = found._portable.standins["audio"].expand(len(texts), -1)
    torch.testing.assert_close(
        found.scores(image=images, text=texts),
        clip_scores([learned, found.encode_texts(texts)], found.encode_images(images)),
    )
    audio, images_ND = found.encode_audio([decode_audio(item["flac"]) for item in raw]), found.encode_images(images)
    known = found.encode_texts([item["txt"].decode() for item in members(dataset, "train")])
    with_each = [clip_scores([audio, text[None].expand_as(audio)], images_ND) for text in known]
    torch.testing.assert_close(
        found.scores(image=images_ND, audio=audio), torch.stack(with_each).mean(dim=0), atol=2e-6, rtol=2e-6
    )


def test_the_dataset_is_not_read(trained_runs: Path, dataset: Dataset, tmp_path: Path) -> None:
    shutil.copytree(trained_runs / "symile", tmp_path / "alone")
    for name in ("last.safetensors", "last.state", "run.json", "metrics.csv", "metrics.jsonl", "curves.png"):
        (tmp_path / "alone" / name).unlink()
    text = members(dataset)[0]["txt"].decode()
    code = f"import symile_m3; print(symile_m3.load('alone').encode_texts([{text!r}]).shape)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "torch.Size([1, 32])\n"


def test_importing_the_package_is_light() -> None:
    code = "import symile_m3, sys; print('torch' in sys.modules, 'load' in symile_m3.__all__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False True\n"


def test_a_finished_run_gets_what_it_lacks_when_it_is_trained_again(
    trained_data: Path, trained_runs: Path, tmp_path: Path, short_recipe: TrainConfig
) -> None:
    again = shutil.copytree(trained_runs, tmp_path / "runs")
    before = {path.name: path.read_bytes() for path in (again / "symile").iterdir()}
    for name in ("model.json", "vocabulary.json"):
        (again / "symile" / name).unlink()
    with pytest.raises(NotBuiltError, match=r"has no model\.json, so .*run the same `symile-m3 train` once more"):
        symile_m3.load(again / "symile")
    train(trained_data, again, config=short_recipe)
    assert {path.name: path.read_bytes() for path in (again / "symile").iterdir()} == before
    symile_m3.load(again / "symile")


def test_what_cannot_be_opened(trained_runs: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"holds the runs symile and clip: name one of them, such as .*/symile"):
        symile_m3.load(trained_runs)
    with pytest.raises(NotBuiltError, match="no run and no exported model"):
        symile_m3.load(tmp_path)
    with pytest.raises(NotBuiltError, match="there is no such directory, and it is no name of a model on the Hub"):
        symile_m3.load(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="is a directory, not a model on the Hub"):
        symile_m3.load(trained_runs / "symile", revision="v1")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("best.safetensors", "not the weights that model.json beside it was written for"),
        ("audio_net.safetensors", "not the file that model.json beside it was written with"),
        ("vocabulary.json", "not the file that model.json beside it was written with"),
        ("standins.safetensors", "not the file that model.json beside it was written with"),
        ("model.json", "unreadable"),
        ("config.json", "unreadable"),
    ],
)
@pytest.mark.parametrize("damage", ["cut off", "gone"])
def test_damaged_files_are_named(name: str, message: str, damage: str, trained_runs: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(trained_runs / "symile", tmp_path / "run")
    content = (copy / name).read_bytes()
    (copy / name).unlink()
    if damage == "cut off":
        (copy / name).write_bytes(content[:-7])
    wanted = message if damage == "cut off" else name.replace("best", "(model|best)")
    with pytest.raises((TrainingError, NotBuiltError), match=wanted) as caught:
        symile_m3.load(copy)
    assert "\n" not in str(caught.value)


def test_files_outside_the_directory_are_never_named(trained_runs: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(trained_runs / "symile", tmp_path / "run")
    record = json.loads((copy / "model.json").read_text())
    record["files"]["../../secret"] = "0" * 64
    (copy / "model.json").write_text(json.dumps(record))
    with pytest.raises(TrainingError, match="no part of a model"):
        symile_m3.load(copy)


def test_media_that_cannot_be_used(model: TrainedModel, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"\xff\xd8\xffno image")
    with pytest.raises(SourceError, match=r"a\.jpg: not an image"):
        model.encode_images([tmp_path / "a.jpg"])
    with pytest.raises(SourceError, match=r"b\.jpg: cannot be read \(No such file"):
        model.encode_images([tmp_path / "b.jpg"])
    with pytest.raises(SourceError, match=r"float32 \(40, 40\), where uint8 \(height, width, 3\)"):
        model.encode_images([np.zeros((40, 40), np.float32)])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="not NoneType"):
        model.encode_images([None])  # type: ignore[list-item]
    with pytest.raises(SourceError, match="neither FLAC, WAV, Ogg nor MP3"):
        model.encode_audio([tmp_path / "a.jpg"])
    with pytest.raises(SourceError, match="a waveform is silent"):
        model.encode_audio((np.zeros(16_000, np.float32), 16_000))
    with pytest.raises(SourceError, match="not finite"):
        model.encode_audio((np.full(16_000, np.nan, np.float32), 16_000))
    with pytest.raises(SourceError, match=r"lasts 0\.06 s"):
        model.encode_audio((np.ones(1000, np.float32), 16_000))
    with pytest.raises(SourceError, match="of one channel"):
        model.encode_audio([(np.ones((2, 16_000), np.float32), 16_000)])


def test_questions_that_make_no_sense(model: TrainedModel) -> None:
    text = model.vocabulary[0]
    with pytest.raises(UsageError, match=f"the model knows no word '{text}x'; near: .*{text}"):
        model.encode_texts([f"{text}x"])
    with pytest.raises(UsageError, match="a text is empty"):
        model.encode_texts([""])
    rep = torch.zeros(3, 32)
    with pytest.raises(UsageError, match="no candidates: give image="):
        model.scores(text=text)
    with pytest.raises(UsageError, match="no query: give audio= or text="):
        model.scores(image=rep)
    with pytest.raises(UsageError, match="queries of 3 of audio and 2 of text"):
        model.scores(image=rep, audio=rep, text=rep[:2])
    with pytest.raises(UsageError, match=r"text: representations are \(N, 32\), not \(3, 16\)"):
        model.scores(image=rep, text=rep[:, :16])
    with pytest.raises(UsageError, match="no modality; known: image, audio, text"):
        model.scores(image=rep, text=rep, retrieve="video")
    with pytest.raises(UsageError, match="k = 0"):
        model.rank(image=rep, text=rep, k=0)
