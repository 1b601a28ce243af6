"""`symile-m3 encode`, and what `train --show-config` shows."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import tiny_models
from script import error_of, symile_m3


def test_encode_runs_once_and_reports(tiny_dataset: Path, tmp_path: Path) -> None:
    data = shutil.copytree(tiny_dataset, tmp_path / "data", ignore=shutil.ignore_patterns("features"))
    clip, whisper = tiny_models.save_clip(tmp_path / "clip"), tiny_models.save_whisper(tmp_path / "whisper")
    words = (
        "encode",
        "--data",
        data,
        "--set",
        f"image=clip:{clip}",
        "--set",
        f"audio=whisper:{whisper}",
        "--json",
        "-",
    )
    first = symile_m3(*words)
    assert first.returncode == 0, first.stderr
    assert "Image features" in first.stderr
    figures, again = json.loads(first.stdout), json.loads(symile_m3(*words).stdout)
    for kind, shape in (("images", [3, 24]), ("clips", [16])):
        assert figures[kind]["passes"] == figures[kind]["media"] > 0
        assert figures[kind]["shape"] == shape
        assert again[kind] == {**figures[kind], "passes": 0}
        assert (Path(figures[kind]["folder"]) / f"{kind}.npy").is_file()


def test_a_tag_that_does_not_exist_is_a_wrong_argument(tiny_dataset: Path) -> None:
    result = symile_m3("encode", "--data", tiny_dataset, "--set", "image=clip:ViT-B-32@openia")
    assert result.returncode == 2
    assert "has no pretrained tag openia" in error_of(result)
    assert "openai" in error_of(result)


def test_every_value_of_the_published_recipe_is_shown() -> None:
    result = symile_m3("train", "--preset", "paper", "--missing-p", "0.5", "--show-config")
    assert result.returncode == 0
    config = json.loads(result.stdout)
    assert config["features"]["image"] == "clip:ViT-L-14@openai"
    assert config["features"]["audio"] == "whisper:openai/whisper-large-v3"
    assert (config["model"]["text"], config["model"]["dim"]) == ("xlmr:xlm-roberta-large", 8192)
    assert (config["model"]["symile_log_scale"], config["negatives"]) == (-6.0, "n")
    assert (config["epochs"], config["steps"], config["batch_size"]) == (24.0, 0, 256)
    assert (config["schedule"], config["missing_p"], config["redraw"]) == ("constant", 0.5, False)
    steps = json.loads(symile_m3("train", "--preset", "paper", "--steps", "7", "--show-config").stdout)
    assert (steps["epochs"], steps["steps"]) == (0.0, 7)
