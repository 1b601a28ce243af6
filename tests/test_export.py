"""Exported folders: what is in them, that they open anywhere, the card, and the way to a hub and back."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import tiny_models
import torch
from huggingface_hub import ModelCard
from model_hub import ModelHub, serving_models

import symile_m3
from symile_m3.ceilings import Ceilings
from symile_m3.errors import NotBuiltError, TrainingError, UsageError
from symile_m3.evaluate import evaluate
from symile_m3.export import export_run
from symile_m3.features import FeatureConfig, open_dataset
from symile_m3.model import ModelConfig
from symile_m3.recipe import TrainConfig
from symile_m3.train import train

FILES = [
    "README.md",
    "audio_net.safetensors",
    "config.json",
    "model.json",
    "model.safetensors",
    "standins.safetensors",
    "vocabulary.json",
]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def exported(trained_runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "symile"
    return export_run(trained_runs / "symile", folder, name="ann/model").folder


def test_a_folder_holds_the_model_and_opens_anywhere(exported: Path, trained_runs: Path, tmp_path: Path) -> None:
    assert sorted(contents(exported)) == FILES
    found = symile_m3.load(shutil.copytree(exported, tmp_path / "elsewhere"))
    run = symile_m3.load(trained_runs / "symile")
    words = list(run.vocabulary)
    assert torch.equal(found.encode_texts(words), run.encode_texts(words))
    best = (trained_runs / "symile" / "best.safetensors").read_bytes()
    assert (exported / "model.safetensors").read_bytes() == best


def test_the_same_run_gives_the_same_bytes_and_no_paths(exported: Path, trained_runs: Path, tmp_path: Path) -> None:
    again = export_run(trained_runs / "symile", tmp_path / "a" / "again", name="ann/model")
    assert contents(again.folder) == contents(exported)
    assert sorted(path.name for path in again.folder.parent.iterdir()) == ["again"]
    for name, content in contents(exported).items():
        assert str(trained_runs.parent).encode() not in content, name


def test_the_card_is_one_that_the_hub_reads(exported: Path) -> None:
    card = ModelCard.load(exported / "README.md", ignore_metadata_errors=False)
    assert card.data.license == "other"
    assert card.data.library_name == "symile-m3"
    assert card.data.pipeline_tag == "feature-extraction"
    assert card.data.language == ["el", "en"]
    assert card.data.datasets == ["symile-m3"]
    (result,) = card.data.eval_results or []
    assert (result.dataset_split, result.metric_type) == ("validation", "accuracy")
    summary = json.loads((exported / "model.json").read_text())
    assert summary["weights"] in card.text
    assert 'symile_m3.load("ann/model")' in card.text
    assert "Not measured on the test samples" in card.text


def test_figures_of_the_test_come_from_what_eval_wrote(
    trained_data: Path, trained_runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("symile_m3.evaluate.measure_ceilings", lambda *_: Ceilings(image=0.5, language=0.5))
    report = evaluate(trained_data, trained_runs, bootstrap=10)
    runs = shutil.copytree(trained_runs, tmp_path / "runs")
    (runs / "eval.json").write_text(json.dumps(report))
    result = report["results"]["symile"]
    card = ModelCard.load(export_run(runs / "symile", tmp_path / "out").folder / "README.md")
    values = {found.metric_name: found.metric_value for found in card.data.eval_results or []}
    assert values["Top-1"] == round(result["top1"], 4)
    assert {found.dataset_split for found in card.data.eval_results or []} == {"test"}
    assert f"{result['ci95'][0]:.3f} to {result['ci95'][1]:.3f}" in card.text
    os.utime(runs / "eval.json", (0, 0))  # older than the weights
    assert "Not measured" in (export_run(runs / "symile", tmp_path / "old").folder / "README.md").read_text()
    for change, message in (
        ({"dataset": {"fingerprint": "0"}}, "figures on another dataset"),
        ({"results": {"symile": {**result, "runs": [{"seed": 7}]}}}, "figures of other runs, or of several"),
        ({"results": {}}, "has no 'symile'"),
        ({"results": {"symile": {**result, "ci95": None}}}, "cannot be read"),
    ):
        (tmp_path / "eval.json").write_text(json.dumps({**report, **change}))
        with pytest.raises(UsageError, match=message):
            export_run(runs / "symile", tmp_path / "new", evaluation=tmp_path / "eval.json")
    assert not (tmp_path / "new").exists()


def test_only_an_earlier_export_is_replaced(exported: Path, trained_runs: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(exported, tmp_path / "out")
    assert not export_run(trained_runs / "symile", folder, name="ann/model").written
    with pytest.raises(UsageError, match="holds an earlier export; give --overwrite"):
        export_run(trained_runs / "clip", folder)
    assert contents(folder) == contents(exported)
    assert export_run(trained_runs / "clip", folder, overwrite=True).written
    assert symile_m3.load(folder).objective == "clip"
    other = tmp_path / "thesis"
    other.mkdir()
    (other / "thesis.tex").write_text("all of it")
    with pytest.raises(UsageError, match="holds something else than an export, and --overwrite replaces earlier"):
        export_run(trained_runs / "symile", other, overwrite=True)
    assert (other / "thesis.tex").read_text() == "all of it"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "thesis"]


def test_what_is_not_finished_is_not_exported(trained_runs: Path, tmp_path: Path) -> None:
    with pytest.raises(NotBuiltError, match="no trained run"):
        export_run(tmp_path / "symile", tmp_path / "out")
    run = shutil.copytree(trained_runs / "symile", tmp_path / "symile")
    (run / "model.json").unlink()
    with pytest.raises(NotBuiltError, match=r"has no model\.json"):
        export_run(run, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_local_backbones_come_along(trained_data: Path, short_recipe: TrainConfig, tmp_path: Path) -> None:
    models = tmp_path / "models"
    tiny_models.save_clip(models / "clip")
    tiny_models.save_whisper(models / "whisper")
    tiny_models.save_xlmr(models / "xlmr")
    config = replace(
        short_recipe,
        features=FeatureConfig(image=f"clip:{models}/clip", audio=f"whisper:{models}/whisper:train", image_views=1),
        model=ModelConfig(text=f"xlmr:{models}/xlmr", dim=16, image_hidden=0, audio_hidden=0),
        steps=2,
        lr=1e-3,
    )
    train(trained_data, tmp_path / "runs", objectives=["symile"], config=config)
    reader = open_dataset(trained_data).readers["test"]
    for name in ("jpg", "flac"):
        (tmp_path / f"a.{name}").write_bytes(reader.read(0, (name,))[name])

    def reps(where: Path) -> list[torch.Tensor]:
        model = symile_m3.load(where)
        return [
            model.encode_images(tmp_path / "a.jpg"),
            model.encode_audio(tmp_path / "a.flac"),
            model.encode_texts("abc_def"),
        ]

    before = reps(tmp_path / "runs" / "symile")
    folder = export_run(tmp_path / "runs" / "symile", tmp_path / "out").folder
    shutil.move(models, tmp_path / "gone")
    with pytest.raises(UsageError, match=r"image=clip:.*/models/clip: "):
        symile_m3.load(tmp_path / "runs" / "symile")
    for wanted, found in zip(before, reps(shutil.move(folder, tmp_path / "moved")), strict=True):
        assert torch.equal(wanted, found)
    assert str(tmp_path) not in (tmp_path / "moved" / "config.json").read_text()
    shutil.move(tmp_path / "gone", models)
    tiny_models.save_xlmr(models / "other", seed=1)
    shutil.rmtree(models / "xlmr")
    (models / "other").rename(models / "xlmr")
    with pytest.raises(TrainingError, match=r"text=xlmr:.*: other weights than the run began with"):
        export_run(tmp_path / "runs" / "symile", tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_pickled_backbones_do_not(trained_data: Path, short_recipe: TrainConfig, tmp_path: Path) -> None:
    folder = tiny_models.save_clip(tmp_path / "clip")
    weights = folder / "open_clip_model.safetensors"
    torch.save(safetensors.torch.load_file(weights), folder / "open_clip_pytorch_model.bin")
    weights.unlink()
    config = replace(short_recipe, features=replace(short_recipe.features, image=f"clip:{folder}"), steps=2)
    train(trained_data, tmp_path / "runs", objectives=["symile"], config=config)
    with pytest.raises(TrainingError, match=r"open_clip_pytorch_model\.bin is pickled.*save it as safetensors"):
        export_run(tmp_path / "runs" / "symile", tmp_path / "out")


# ---- a hub


@pytest.fixture
def hub() -> Iterator[ModelHub]:
    with serving_models({"hf_ann": "ann", "hf_bob": "bob"}) as served:
        yield served


def answers(endpoint: str, home: Path, *steps: tuple[str | Path, ...]) -> list[dict[str, Any]]:
    words = [str(word) for step in steps for word in (*step, "then")][:-1]
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("hub_user.py"), *words],
        env={**os.environ, "HF_ENDPOINT": endpoint, "HF_HOME": str(home)},
        capture_output=True,
        text=True,
        check=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_model_goes_to_a_hub_and_comes_back(hub: ModelHub, exported: Path, tmp_path: Path) -> None:
    found = answers(
        hub.url,
        tmp_path / "home",
        ("hf_ann", "push", exported, "ann/model", "private"),
        ("hf_ann", "push", exported, "ann/model"),
        ("hf_ann", "push", exported, "ann/model", "overwrite"),
        ("hf_ann", "load", "ann/model"),
        ("hf_ann", "load", "ann/model", "v9"),
        ("hf_bob", "load", "ann/none"),
        ("hf_bob", "push", exported, "ann/model", "overwrite"),
        ("hf_eve", "push", exported, "eve/model"),
        ("hf_bob", "push", exported, "bob"),
        ("", "push", exported, "ann/model"),
    )
    assert found[0] == found[2] == {"address": f"{hub.url}/ann/model"}
    assert hub.models["ann/model"] == contents(exported)
    assert hub.private == {"ann/model"}
    assert [(name, paths) for name, _, paths in hub.commits] == [("ann/model", FILES)] * 2
    assert set(hub.large.values()) == {content for name, content in contents(exported).items() if "safetensors" in name}
    model = symile_m3.load(exported)
    assert found[3]["rep"] == model.encode_texts(model.vocabulary[0])[0].tolist()
    messages = [answer.get("error", "") for answer in found]
    for number, message in (
        (1, "UsageError: --push ann/model: exists on the Hub; give --overwrite"),
        (4, "NotBuiltError: ann/model: the model has no revision v9"),
        (5, "NotBuiltError: ann/none: there is no such directory, and no such model on the Hub"),
        (6, r"ServiceError: --push ann/model: this account may not write there \(403: You don't have the rights"),
        (7, r"ServiceError: --push eve/model: the Hub does not take the token \(401: .*`hf auth login`"),
        (8, "UsageError: --push bob: give OWNER/NAME"),
        (9, "ServiceError: --push ann/model: no token of the Hugging Face Hub is at hand: `hf auth login`"),
    ):
        assert re.match(message, messages[number]), messages[number]
        assert "\n" not in messages[number]


def test_a_hub_that_fails_or_holds_something_else(hub: ModelHub, exported: Path, tmp_path: Path) -> None:
    hub.refusing["/lfs/"] = 403
    hub.models["ann/other"] = {"config.json": b"{}"}
    found = answers(
        hub.url,
        tmp_path / "home",
        ("hf_ann", "push", exported, "ann/model"),
        ("hf_ann", "load", "ann/other"),
    )
    assert re.search(r"\(403: not today\).* the same command with --overwrite goes on", found[0]["error"])
    assert "not one that symile-m3 exported (it has no model.json)" in found[1]["error"]
    unreachable = answers(
        "http://127.0.0.1:9",
        tmp_path / "other-home",
        ("hf_ann", "push", exported, "ann/model"),
        ("hf_ann", "load", "ann/model"),
    )
    assert re.search("the Hub cannot be reached .*refused.* the same command goes on", unreachable[0]["error"])
    assert re.search("the Hub cannot be reached for a model .*run again with a network", unreachable[1]["error"])


# ---- examples in the documents


def examples() -> list[str]:
    """The Python of README.md and docs/USE.md that opens a model."""
    root = Path(__file__).parents[1]
    texts = [path.read_text(encoding="utf-8") for path in (root / "README.md", root / "docs" / "USE.md")]
    blocks = [block for text in texts for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL)]
    return [block for block in blocks if "symile_m3.load(" in block]


def test_examples_run_as_they_are_written(
    trained_data: Path, trained_runs: Path, exported: Path, tmp_path: Path
) -> None:
    (tmp_path / "photos").mkdir()
    reader = open_dataset(trained_data).readers["test"]
    for i in range(6):
        (tmp_path / "photos" / f"{i}.jpg").write_bytes(reader.read(i, ("jpg",))["jpg"])
    (tmp_path / "query.flac").write_bytes(reader.read(0, ("flac",))["flac"])
    shutil.copytree(trained_runs, tmp_path / "runs" / "m3")
    shutil.copytree(exported, tmp_path / "ann" / "model")
    card = re.findall(r"```python\n(.*?)```", (exported / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    found = [*examples(), *card]
    assert len(found) >= 2
    code = "\n".join(found)
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(re.findall(r"^ +-?[\d.]+  photos/\d\.jpg$", done.stdout, re.MULTILINE)) == 5 * len(found)
