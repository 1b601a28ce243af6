"""`symile-m3 export`: the folder, the figures, and bad input."""

from __future__ import annotations

import json
from pathlib import Path

from model_hub import serving_models
from script import console_script, error_of, symile_m3


def test_export_writes_a_folder_and_puts_it_on_a_hub(trained_runs: Path, tmp_path: Path) -> None:
    words = ("export", "--runs", trained_runs, "--out", tmp_path / "out", "--license", "cc0-1.0", "--json", "-")
    with serving_models({"hf_ann": "ann"}) as hub:
        env = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_TOKEN": "hf_ann"}
        result = console_script(*words, "--push", "ann/model", **env)
    assert result.returncode == 0, result.stderr
    figures = json.loads(result.stdout)
    assert figures["objective"] == "symile"
    assert figures["hub"] == f"{hub.url}/ann/model"
    sizes = {path.name: path.stat().st_size for path in (tmp_path / "out").iterdir()}
    assert figures["files"] == sizes == {name: len(content) for name, content in hub.models["ann/model"].items()}
    assert b"license: cc0-1.0" in hub.models["ann/model"]["README.md"]


def test_arguments_are_checked(trained_runs: Path, tmp_path: Path) -> None:
    out = ("--out", tmp_path / "out")
    result = symile_m3("export", *out, "--runs", trained_runs, "--objective", "clap")
    assert result.returncode == 2
    assert "--objective clap: unknown; known: symile, clip, " in error_of(result)
    result = symile_m3("export", *out, "--runs", tmp_path)
    assert result.returncode == 1
    assert "no trained run" in error_of(result)
    result = symile_m3("export", *out, "--runs", trained_runs, "--private")
    assert result.returncode == 2
    assert "--private: says how --push makes the model" in error_of(result)
    assert not (tmp_path / "out").exists()
