"""Evaluation: the figures, the intervals, and what stands for a missing modality."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from random_model import standin
from torch import Tensor

from symile_m3.assembly import new_model, new_tokeniser
from symile_m3.ceilings import Ceilings, measure_ceilings
from symile_m3.errors import NotBuiltError, TrainingError, UsageError
from symile_m3.evaluate import PATTERNS, evaluate
from symile_m3.evaluation_report import Measured
from symile_m3.features import Dataset, FeatureConfig, Features, load_features, open_dataset
from symile_m3.intervals import Resampling, runs_interval
from symile_m3.missing_plot import draw_missing
from symile_m3.model import Inputs, Model, ModelConfig
from symile_m3.objectives import get_objective
from symile_m3.plots import COLOURS
from symile_m3.progress import NoProgress
from symile_m3.questions import Questions
from symile_m3.recipe import TrainConfig
from symile_m3.retrieval import Retrieval
from symile_m3.shards import DatasetLayout, DatasetReader, decode_json, missing_mask
from symile_m3.train import train

SMALL = TrainConfig(
    features=FeatureConfig(image_views=2, audio_steps=4),
    model=ModelConfig(dim=16, image_hidden=16, text_buckets=16),
    steps=8,
    batch_size=16,
    evaluations=2,
)


@pytest.fixture(scope="module")
def data(featured_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shutil.copytree(featured_dataset, tmp_path_factory.mktemp("evaluate") / "data")


@pytest.fixture(scope="module")
def runs(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both objectives trained on complete samples."""
    directory = tmp_path_factory.mktemp("runs")
    train(data, directory, config=SMALL)
    return directory


@pytest.fixture(scope="module", autouse=True)
def ceilings() -> Iterator[Ceilings]:
    """Given, not measured: a classifier of 1,280 features takes as long as all else here."""
    given = Ceilings(image=0.75, language=0.5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("symile_m3.evaluate.measure_ceilings", lambda dataset, features, key: given)
        yield given


@pytest.fixture(scope="module")
def report(data: Path, runs: Path) -> dict[str, Any]:
    return evaluate(data, runs, missing_p=0.5, bootstrap=200)


@pytest.fixture(scope="module")
def dataset(data: Path) -> Dataset:
    return open_dataset(data)


@pytest.fixture(scope="module")
def features(dataset: Dataset) -> Features:
    return load_features(dataset, SMALL.features, NoProgress())


# ---- the report


def test_the_report_has_its_keys_and_is_json(report: dict[str, Any], dataset: Dataset, ceilings: Ceilings) -> None:
    assert json.loads(json.dumps(report)) == report
    assert list(report) == ["dataset", "bounds", "intervals", "results", "missing", "differences"]
    expected = {"languages": 2, "words": 2, "classes": 8, "split_by": "media"}
    assert {name: report["dataset"][name] for name in expected} == expected
    assert report["dataset"]["fingerprint"] == dataset.plan.fingerprint
    assert report["bounds"]["text_only"] == 1 / 2
    assert report["bounds"]["audio_only"] == 1 / 8
    assert report["bounds"]["image_ceiling"] == ceilings.image
    assert report["bounds"]["language_ceiling"] == ceilings.language
    assert list(report["results"]) == ["symile", "clip"]
    for result in report["results"].values():
        assert {"top1", "ci95", "top5", "by_language", "n"} <= result.keys()
        assert result["n"] == 16
        assert 0 <= result["ci95"][0] <= result["top1"] <= result["ci95"][1] <= 1
        assert result["top1"] <= result["top5"]
        assert result["trained_with_missing_p"] == 0
    assert list(report["missing"]) == ["p", "symile", "clip", "exact"]
    assert report["missing"]["p"] == 0.5


def test_the_mean_over_languages_is_the_whole(report: dict[str, Any], data: Path) -> None:
    reader = DatasetReader(data, "test")
    spoken = [decode_json(reader.read(i)["json"])["lang"] for i in range(len(reader))]
    for result in report["results"].values():
        assert sorted(result["by_language"]) == sorted(set(spoken))
        total = sum(share * spoken.count(language) for language, share in result["by_language"].items())
        assert total / len(spoken) == pytest.approx(result["top1"])


def test_patterns_partition_the_queries(report: dict[str, Any], data: Path) -> None:
    reader = DatasetReader(data, "test")
    keys = [reader.key(i) for i in range(len(reader))]
    no_audio, no_text = (missing_mask(keys, modality, 0.5, 0) for modality in ("audio", "text"))
    counts = {
        "both": int((~no_audio & ~no_text).sum()),
        "text_only": int((no_audio & ~no_text).sum()),
        "audio_only": int((~no_audio & no_text).sum()),
        "none": int((no_audio & no_text).sum()),
    }
    assert list(counts) == list(PATTERNS)
    assert sum(counts.values()) == 16
    assert all(counts.values())
    for name in ("symile", "clip"):
        missing = report["missing"][name]
        assert missing["n"] == counts
        total = sum(missing[pattern] * count for pattern, count in counts.items())
        assert total / 16 == pytest.approx(missing["overall"])
        normalised = " normalised" if name == "clip" else ""
        assert missing["fill"] == f"mean{normalised} training representation"


def test_intervals_draw_images_with_their_queries(
    report: dict[str, Any], data: Path, runs: Path, ceilings: Ceilings
) -> None:
    wanted = {}

    def observe(questions: Questions, measured: Sequence[Measured]) -> None:
        for run in measured:
            hits_Q = (run.measures.ranks_Q == 1).numpy()
            assert len(set(questions.image_of_Q.tolist())) < len(questions)
            wanted[run.name] = runs_interval(
                hits_Q[None], Resampling(resamples=200, groups_Q=questions.image_of_Q.numpy())
            )

    evaluate(data, runs, bootstrap=200, observe=observe)
    assert {name: result["ci95"] for name, result in report["results"].items()} == wanted


def test_nothing_missing_is_the_complete_result(report: dict[str, Any], data: Path, runs: Path) -> None:
    complete = evaluate(data, runs, missing_p=0.0, bootstrap=200)
    assert complete["results"] == report["results"]
    for name in ("symile", "clip"):
        missing = complete["missing"][name]
        assert missing["overall"] == missing["both"] == pytest.approx(report["results"][name]["top1"])
        assert missing["text_only"] is missing["audio_only"] is missing["none"] is None
    assert "missing" not in evaluate(data, runs, bootstrap=10)


# ---- what stands for a missing modality


def loaded(runs: Path, name: str, config: TrainConfig, dataset: Dataset, features: Features) -> Model:
    model = new_model(dataset, features, get_objective(name), config)
    model.load_state_dict(safetensors.torch.load_file(runs / name / "best.safetensors"))
    return model.eval()


@torch.no_grad()
def reps_of(model: Model, dataset: Dataset, features: Features, split: str, config: TrainConfig) -> dict[str, Tensor]:
    """Representations of audio and text of every sample of a split, and of its candidate images, in float64."""
    tokeniser = new_tokeniser(dataset, config)
    reader = dataset.readers[split]
    records = [decode_json(reader.read(i)["json"]) for i in range(len(reader))]
    rows = [dataset.clips.row_of[record["clip_id"]] for record in records]
    texts = tokeniser(["_".join(record["words"]) for record in records])
    given = {
        "image": features.image_inputs(dataset.candidates(split)),
        "audio": features.clip_inputs(torch.tensor(rows)),
        "text": (texts,),
    }
    return {modality: model.encode(modality, Inputs(given=given)).double() for modality in given}


def by_pattern(hits: Tensor, no_audio: Tensor, no_text: Tensor) -> dict[str, float]:
    return {
        "overall": float(hits.double().mean()),
        **{
            name: float(hits[(no_audio == audio) & (no_text == text)].double().mean())
            for name, (audio, text) in PATTERNS.items()
        },
    }


def test_the_mean_is_the_expectation_over_the_training_samples(
    report: dict[str, Any], runs: Path, dataset: Dataset, features: Features
) -> None:
    """What is missing is averaged over: the score is the mean of the MIPs with every training sample's."""
    model = loaded(runs, "symile", SMALL, dataset, features)
    known = reps_of(model, dataset, features, "train", SMALL)
    query = reps_of(model, dataset, features, "test", SMALL)
    assert len(known["audio"]) == len(known["text"]) == 64
    task = Retrieval.of_split(dataset, features, "test", new_tokeniser(dataset, SMALL))
    no_audio, no_text = (torch.from_numpy(missing_mask(task.keys, name, 0.5, 0)) for name in ("audio", "text"))
    hits = []
    for q in range(len(task)):
        audios = known["audio"] if no_audio[q] else query["audio"][q : q + 1]
        texts = known["text"] if no_text[q] else query["text"][q : q + 1]
        products = torch.einsum("ad,td,nd->atn", audios, texts, query["image"])
        best = int(products.mean(dim=(0, 1)).argmax())
        hits.append(bool(task.candidate_class_ids[best] == task.class_ids[q]))
    expected = by_pattern(torch.tensor(hits), no_audio, no_text)
    assert {name: report["missing"]["symile"][name] for name in expected} == pytest.approx(expected)


def test_a_model_trained_with_missingness_uses_what_it_learned(
    data: Path, dataset: Dataset, features: Features, tmp_path: Path
) -> None:
    config = replace(SMALL, missing_p=0.4)
    train(data, tmp_path, objectives=["symile"], config=config)
    report = evaluate(data, tmp_path, missing_p=0.5, bootstrap=10)
    assert report["results"]["symile"]["trained_with_missing_p"] == 0.4
    assert list(report["results"]) == ["symile"]
    missing = report["missing"]["symile"]
    assert missing["fill"] == "what was learned for it"
    model = loaded(tmp_path, "symile", config, dataset, features)
    query = reps_of(model, dataset, features, "test", config)
    task = Retrieval.of_split(dataset, features, "test", new_tokeniser(dataset, config))
    masks = {name: torch.from_numpy(missing_mask(task.keys, name, 0.5, 0)) for name in ("audio", "text")}
    for name, mask in masks.items():
        query[name][mask] = standin(model, name).double()
    best = (query["audio"] * query["text"] @ query["image"].T).argmax(dim=1)
    expected = by_pattern(task.candidate_class_ids[best] == task.class_ids, masks["audio"], masks["text"])
    assert {pattern: missing[pattern] for pattern in expected} == pytest.approx(expected)


# ---- ceilings


@pytest.mark.parametrize(("told", "reached"), [(1.0, (0.9, 1.0)), (0.0, (0.0, 0.6))])
def test_ceilings_are_what_the_features_tell(
    told: float, reached: tuple[float, float], dataset: Dataset, tmp_path: Path
) -> None:
    """Features that are the class or language itself, and features of noise; 8 classes and 2 languages."""

    def telling(ids: Tensor, groups: int, seed: int) -> Tensor:
        noise = torch.randn(len(ids), groups, generator=torch.Generator().manual_seed(seed))
        return told * torch.nn.functional.one_hot(ids, groups) + 0.1 * noise

    features = Features(
        image_NVF=telling(dataset.images.group_ids, 8, 0)[:, None],
        clip_NF=telling(dataset.clips.group_ids, 2, 1),
        clip_mask_NT=None,
    )
    own = replace(dataset, layout=DatasetLayout(tmp_path))
    found = measure_ceilings(own, features, "key")
    low, high = reached
    assert low <= found.image <= high
    if told:
        assert found.language is not None
        assert found.language >= low
    kept = measure_ceilings(own, replace(features, image_NVF=torch.zeros(0)), "key")  # read, not measured again
    assert kept == found
    scratch = replace(features, clip_mask_NT=torch.ones(1))
    assert measure_ceilings(own, scratch, "another key").language is None


# ---- several runs, and what is reported on request


@pytest.fixture(scope="module")
def more_runs(data: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Another seed, and one trained with missing modalities."""
    root = tmp_path_factory.mktemp("more")
    train(data, root / "seed", config=replace(SMALL, seed=1))
    train(data, root / "missing", config=replace(SMALL, missing_p=0.3))
    return [root / "seed", root / "missing"]


@pytest.fixture(scope="module")
def readings() -> Iterator[None]:
    """Given, not measured, as the ceilings are: the right answers, a little blurred."""

    def given(dataset: Dataset, features: Features, key: str, images: Tensor, clips: Tensor) -> tuple[Tensor, Tensor]:
        one_hot = torch.nn.functional.one_hot
        shares = (one_hot(dataset.images.group_ids[images], 8), one_hot(dataset.clips.group_ids[clips], 2))
        return shares[0] * 0.9 + 0.1 / 8, shares[1] * 0.9 + 0.1 / 2

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("symile_m3.evaluation_report.measure_readings", given)
        yield


@pytest.fixture(scope="module")
def whole_report(data: Path, runs: Path, more_runs: list[Path], readings: None) -> dict[str, Any]:
    return evaluate(
        data,
        [runs, *more_runs],
        missing_p=[0.0, 0.25, 0.5],
        bootstrap=200,
        directions=True,
        by_class=True,
        gap=True,
        bound=True,
    )


def test_runs_of_several_seeds_are_taken_together(
    whole_report: dict[str, Any], report: dict[str, Any], data: Path, more_runs: list[Path]
) -> None:
    other = evaluate(data, more_runs[0], bootstrap=200)
    for name, result in whole_report["results"].items():
        alone = [report["results"][name]["top1"], other["results"][name]["top1"]]
        assert [run["top1"] for run in result["runs"]] == pytest.approx(alone)
        assert [run["seed"] for run in result["runs"]] == [0, 1]
        assert result["top1"] == pytest.approx(np.mean(alone))
        assert result["deviation_over_runs"] == pytest.approx(np.std(alone, ddof=1))
        assert result["ci95"][0] <= result["top1"] <= result["ci95"][1]
        assert result["trained_with_missing_p"] == 0
    difference = whole_report["differences"]["symile - clip"]
    tops = [whole_report["results"][name]["top1"] for name in ("symile", "clip")]
    assert difference["top1"] == pytest.approx(tops[0] - tops[1])
    assert difference["runs"] == 2


def test_runs_trained_with_missing_modalities_give_a_curve(
    whole_report: dict[str, Any], data: Path, more_runs: list[Path]
) -> None:
    alone = evaluate(data, more_runs[1], bootstrap=200)["results"]
    for name, records in whole_report["trained_missing_curve"].items():
        assert [(record["p"], record["runs"]) for record in records] == [(0.0, 2), (0.3, 1)]
        assert records[0]["top1"] == pytest.approx(whole_report["results"][name]["top1"])
        assert records[1]["top1"] == pytest.approx(alone[name]["top1"])
        assert records[1]["ci95"] == pytest.approx(alone[name]["ci95"])
        assert records[0]["of_first"] == 1
        assert records[0]["of_first_ci95"] == [1, 1]
        assert records[1]["of_first"] == pytest.approx(records[1]["top1"] / records[0]["top1"])
        low, high = records[1]["of_first_ci95"]
        assert low <= records[1]["of_first"] <= high


def test_a_curve_over_p_is_its_single_points(
    whole_report: dict[str, Any], data: Path, runs: Path, more_runs: list[Path]
) -> None:
    curve = whole_report["missing_curve"]
    assert "missing" not in whole_report
    assert [record["p"] for record in curve] == [0.0, 0.25, 0.5]
    assert curve[2] == evaluate(data, [runs, more_runs[0]], missing_p=0.5, bootstrap=200)["missing"]
    for record in curve:
        p = record["p"]
        assert record["exact"]["overall"] == pytest.approx((1 - p) ** 2 + p * (1 - p) / 2 + p / 8)
        for name in ("symile", "clip"):
            low, high = record[name]["ci95"]["overall"]
            assert low <= record[name]["overall"] <= high


def test_directions_stand_beside_what_is_possible(whole_report: dict[str, Any]) -> None:
    found = whole_report["directions"]
    best = {
        "image": {"audio+text": 1, "audio": 1 / 8, "text": 1 / 2},
        "audio": {"image+text": 1, "image": 1 / 2, "text": 1 / 2},
        "text": {"image+audio": 1, "image": 1 / 2, "audio": 1 / 8},
    }
    for retrieved, values in best.items():
        sets = found[retrieved]["from"]
        assert {given: record["best"] for given, record in sets.items()} == pytest.approx(values)
        both = next(given for given in sets if "+" in given)
        assert sets[both]["fitting"] == 1
        assert sets[both]["reader"] == 1
        for record in sets.values():
            for name in ("symile", "clip"):
                figures = record[name]
                assert figures["ci95"][0] <= figures["top1"] <= figures["ci95"][1]
                assert figures["top1"] <= figures["mrr"] <= 1
                assert figures["top1"] <= figures["top5"]
    for name in ("symile", "clip"):
        same = found["image"]["from"]["audio+text"][name]
        assert same == {key: whole_report["results"][name][key] for key in same}
    assert found["image"]["exact_chance"] == 1 / 8
    assert found["text"]["candidates"] == 16
    assert found["fill"]["symile"] == "mean training representation"


def test_the_mean_over_classes_is_the_whole(whole_report: dict[str, Any], report: dict[str, Any]) -> None:
    for result in whole_report["results"].values():
        assert sum(group["n"] for group in result["by_class"].values()) == 16
        total = sum(group["n"] * group["top1"] for group in result["by_class"].values())
        assert total / 16 == pytest.approx(result["top1"])
        assert result["by_language"].keys() == result["by_language_ci95"].keys()
    assert "by_class" not in report["results"]["symile"]


def test_the_gap_and_the_bound_are_reported(whole_report: dict[str, Any]) -> None:
    for name, gap in whole_report["modality_gap"].items():
        assert list(gap["distances"]) == ["image-audio", "image-text", "audio-text"]
        assert all(0 < distance < 2 for distance in gap["distances"].values())
        if name == "clip":  # cosines know no lengths
            assert gap["normalised"]["top1"] == pytest.approx(whole_report["results"][name]["top1"])
        assert gap["difference"]["top1"] == pytest.approx(gap["without"]["top1"] - gap["normalised"]["top1"])
    found = whole_report["total_correlation"]
    assert found["exact"] == pytest.approx(np.log(8))
    assert found["symile"]["nats"] < found["symile"]["highest"] == pytest.approx(np.log(15))
    assert "clip" not in found


def test_the_report_of_everything_is_json(whole_report: dict[str, Any]) -> None:
    assert json.loads(json.dumps(whole_report)) == whole_report


def test_the_plot_is_a_picture_of_both_curves(
    whole_report: dict[str, Any], report: dict[str, Any], tmp_path: Path
) -> None:
    from PIL import Image

    draw_missing(tmp_path / "both.png", whole_report)
    draw_missing(tmp_path / "one.png", {key: whole_report[key] for key in ("results", "missing_curve")})
    with Image.open(tmp_path / "both.png") as both, Image.open(tmp_path / "one.png") as one:
        assert both.format == "PNG"
        assert both.width == 2 * one.width
        pixels = np.asarray(one.convert("RGB")).reshape(-1, 3)
    for name in ("symile", "clip"):
        colour = tuple(bytes.fromhex(COLOURS[name][1:]))
        assert (pixels == colour).all(axis=1).sum() > 100
    with pytest.raises(ValueError, match="no curve"):
        draw_missing(tmp_path / "none.png", report)


def test_runs_that_do_not_go_together_are_refused(data: Path, runs: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(runs, tmp_path / "copy")
    with pytest.raises(TrainingError, match=r"are of one recipe and seed"):
        evaluate(data, [runs, copy])
    with pytest.raises(NotBuiltError, match=r"no trained run in .*nothing"):
        evaluate(data, [runs, tmp_path / "nothing"])
    with pytest.raises(UsageError, match="each once"):
        evaluate(data, runs, missing_p=[0.5, 0.5])


def test_runs_that_missed_other_things_are_not_taken_together(data: Path, tmp_path: Path, readings: None) -> None:
    """As often on the whole, but not the same; and what was never missing has a mean representation only."""
    for modality in ("image", "text"):
        train(data, tmp_path / modality, objectives=["symile"], config=replace(SMALL, missing_p={modality: 0.3}))
    report = evaluate(data, [tmp_path / "text", tmp_path / "image"], missing_p=0.5, directions=True, bootstrap=10)
    (run,) = report["results"]["symile"]["runs"]
    assert Path(run["directory"]).parent.name == "text"  # of those with the same mean, always the same
    assert report["missing"]["symile"]["fill"] == "what was learned for it or mean training representation"
    alone = evaluate(data, tmp_path / "image", missing_p=0.5, directions=True, bootstrap=10)
    assert alone["missing"]["symile"]["fill"] == "mean training representation"
    assert alone["directions"]["fill"]["symile"] == "what was learned for it or mean training representation"


# ---- what cannot be evaluated


def test_arguments_out_of_range(data: Path, runs: Path) -> None:
    for p in (-0.1, 1.0, 1.5, float("nan")):
        with pytest.raises(UsageError, match=r"^--missing-p .*: a probability from 0 to less than 1$"):
            evaluate(data, runs, missing_p=p)
    with pytest.raises(UsageError, match=r"^--bootstrap 0: at least one resample$"):
        evaluate(data, runs, bootstrap=0)


def test_what_must_come_first(data: Path, runs: Path, tmp_path: Path) -> None:
    with pytest.raises(NotBuiltError, match="symile-m3 build"):
        evaluate(tmp_path, runs)
    with pytest.raises(NotBuiltError, match="symile-m3 train"):
        evaluate(data, tmp_path)


def test_a_run_of_another_dataset_is_refused(data: Path, runs: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(runs, tmp_path / "runs")
    path = copy / "symile" / "config.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | {"fingerprint": "f" * 32}))
    with pytest.raises(TrainingError, match="symile was trained on another dataset"):
        evaluate(data, copy)
    path.write_text("{}")
    with pytest.raises(TrainingError, match=r"symile/config\.json: unreadable .*--overwrite"):
        evaluate(data, copy)


def test_damaged_weights_are_named(data: Path, runs: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(runs, tmp_path / "runs")
    path = copy / "clip" / "best.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(TrainingError, match=r"clip/best\.safetensors: unreadable .*--overwrite"):
        evaluate(data, copy)
