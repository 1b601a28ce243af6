"""Exported folders of runs on declared modalities: what is in them, the card, the declaration, and a hub."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from model_hub import serving_models
from user_shards import write_user_shards

import symile_m3
from symile_m3.errors import UsageError
from symile_m3.export import export_run
from symile_m3.modalities.declaration import read_declaration
from symile_m3.modalities.evaluation import evaluate_declared
from symile_m3.modalities.loading import DeclaredModel
from symile_m3.modalities.training import train_declared

FILES = [
    "README.md",
    "config.json",
    "declaration.toml",
    "model.json",
    "model.safetensors",
    "standins.safetensors",
]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards, and runs on them."""
    root = write_user_shards(tmp_path_factory.mktemp("export") / "data")
    declaration = read_declaration(root / "my.toml")
    config = replace(declaration.config, steps=4, dim=16, evaluations=1, missing_p={"note": 0.2})
    train_declared(replace(declaration, config=config), root / "runs")
    return root


@pytest.fixture(scope="module")
def exported(root: Path) -> Path:
    return export_run(root / "runs" / "symile", root / "exported" / "symile", name="ann/model").folder


def loaded(where: Path) -> DeclaredModel:
    found = symile_m3.load(where)
    assert isinstance(found, DeclaredModel)
    return found


def test_a_folder_holds_the_model_and_opens_without_the_data(root: Path, exported: Path, tmp_path: Path) -> None:
    assert sorted(contents(exported)) == FILES
    run, found = loaded(root / "runs" / "symile"), loaded(shutil.copytree(exported, tmp_path / "elsewhere"))
    for name in ("ecg", "note", "age"):
        given = {"ecg": [np.ones((64, 2)), None], "note": ["finding aaaa", None], "age": [30, None]}[name]
        assert torch.equal(found.encode(name, given), run.encode(name, given))
    assert found.standins == run.standins
    again = export_run(root / "runs" / "symile", tmp_path / "again", name="ann/model").folder
    assert contents(again) == contents(exported)
    assert all(str(root).encode() not in content for content in contents(exported).values())


def test_the_declaration_in_it_is_the_one_that_was_trained_on(root: Path, exported: Path) -> None:
    text = (exported / "declaration.toml").read_text()
    with pytest.raises(UsageError, match=r"\[data\] give train, val and test, or all, or arrays"):
        read_declaration(exported / "declaration.toml")
    places = "\n".join(f'{split} = "shards/{split}-*.tar"' for split in ("train", "val", "test"))
    (root / "again.toml").write_text(text.replace("[data]", f"[data]\n{places}"))
    found, first = read_declaration(root / "again.toml"), read_declaration(root / "my.toml")
    assert found.config == loaded(exported).config
    assert found.config.modalities == first.config.modalities
    assert found.data == replace(first.data, retrieve="xray")
    report = evaluate_declared(root / "runs", data=found.data, retrieve=["age"], bootstrap=5)
    assert report["questions"][0]["n"] == 24


def test_the_card_has_the_modalities_the_figures_and_the_use(root: Path, exported: Path, tmp_path: Path) -> None:
    card = ModelCard.load(exported / "README.md", ignore_metadata_errors=False)
    assert card.data.library_name == "symile-m3"
    assert card.data.model_name == "Symile on xray, ecg, note and age"
    (result,) = card.data.eval_results or []
    assert (result.dataset_split, result.metric_type) == ("validation", "accuracy")
    assert "| `ecg` | array [64, 2] | `ecg.npy` | `conv-signal` | yes |" in card.text
    assert "Not measured on the test samples" in card.text
    runs = shutil.copytree(root / "runs", tmp_path / "runs")
    report = evaluate_declared(runs, bootstrap=5)
    (runs / "eval.json").write_text(json.dumps(report))
    measured = ModelCard.load(export_run(runs / "symile", tmp_path / "out").folder / "README.md")
    values = {found.metric_name: found.metric_value for found in measured.data.eval_results or []}
    figures = report["questions"][0]["results"]["symile"]
    assert values["Top-1, xray from ecg, note, age"] == round(figures["top1"], 4)
    assert f"| xray from ecg, note, age | {figures['top1']:.3f} |" in measured.text
    for change, message in (
        ({"data": {"fingerprint": "0"}}, "figures on other samples"),
        ({"seeds": {"symile": [0, 1]}}, "figures of other runs, or of several"),
        ({"missing_p": 0.5}, "figures of queries that hide modalities"),
        ({"seeds": {}}, "has no 'symile'"),
        ({"questions": 3}, "cannot be read"),
    ):
        (tmp_path / "eval.json").write_text(json.dumps({**report, **change}))
        with pytest.raises(UsageError, match=message):
            export_run(runs / "symile", tmp_path / "new", evaluation=tmp_path / "eval.json")


def test_its_example_runs_as_it_is_written(exported: Path, tmp_path: Path) -> None:
    shutil.copytree(exported, tmp_path / "ann" / "model")
    np.save(tmp_path / "xray.npy", np.zeros((1, 32, 32)))
    np.save(tmp_path / "ecg.npy", np.zeros((64, 2)))
    (code,) = re.findall(r"```python\n(.*?)```", (exported / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    code += "print(scores.shape)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("torch.Size([1, 1])\n")


def test_it_goes_to_a_hub_and_comes_back(exported: Path, tmp_path: Path) -> None:
    code = (
        "import sys, pathlib, symile_m3; from symile_m3.hubpush import push_folder\n"
        "push_folder(pathlib.Path(sys.argv[1]), 'ann/model')\n"
        "print(symile_m3.load('ann/model').encode('age', 7)[0].tolist())"
    )
    with serving_models({"hf_ann": "ann"}) as hub:
        env = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_TOKEN": "hf_ann"}
        done = subprocess.run(
            [sys.executable, "-c", code, exported], env={**os.environ, **env}, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        assert hub.models["ann/model"] == contents(exported)
    assert json.loads(done.stdout) == loaded(exported).encode("age", 7)[0].tolist()
