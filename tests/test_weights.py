"""Weights that are not to be had, or are of something else: one line that says what to do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_models

from symile_m3.errors import MissingDependencyError, TrainingError, UsageError
from symile_m3.towers.spec import parse_tower
from symile_m3.towers.weights import find_weights
from symile_m3.towers.whisper import WhisperClips


@pytest.mark.parametrize(
    ("modality", "text", "says"),
    [
        ("image", "clip:ViT-L-41@openai", r"open_clip knows no model ViT-L-41; near: .*ViT-L-14"),
        ("image", "clip:ViT-L-14@open", r"ViT-L-14 has no pretrained tag open, nor is it a file; near: .*openai"),
        ("image", "clip:ViT-L/14@laion", r"ViT-L-14 has no pretrained tag laion, .*; near: .*laion"),
        ("image", "clip:ViT-L-14", r"give a tag, as in clip:ViT-L-14@openai; known: openai"),
        ("image", "clip:/no/such/folder", r"^image=clip:/no/such/folder: there is no folder /no/such/folder; a file"),
        ("text", "clip:magic@openai", r"^text=clip:magic@openai: open_clip knows no model magic"),
        ("audio", "whisper:no such folder", r"^audio=whisper:no such folder: there is no folder no such folder; give"),
        ("text", "xlmr:/no/such/folder", r"there is no folder /no/such/folder"),
    ],
)
def test_what_does_not_exist(modality: str, text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says) as caught:
        find_weights(parse_tower(modality, text))
    assert "\n" not in str(caught.value)


def test_a_folder_without_what_is_needed(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"lacks open_clip_config.json or open_clip_model.safetensors"):
        find_weights(parse_tower("image", f"clip:{tmp_path}"))
    with pytest.raises(UsageError, match=r"config.json cannot be read .*save_pretrained"):
        find_weights(parse_tower("audio", f"whisper:{tmp_path}"))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "whisper"}))
    with pytest.raises(UsageError, match=r"no weights in .*model.safetensors"):
        find_weights(parse_tower("audio", f"whisper:{tmp_path}"))


def test_weights_of_other_towers(tmp_path: Path) -> None:
    xlmr, whisper = tiny_models.save_xlmr(tmp_path / "xlmr"), tiny_models.save_whisper(tmp_path / "whisper")
    with pytest.raises(TrainingError, match=r"holds a model of type xlm-roberta; this tower takes whisper$"):
        find_weights(parse_tower("audio", f"whisper:{xlmr}"))
    with pytest.raises(TrainingError, match=r"holds a model of type whisper; this tower takes xlm-roberta$"):
        find_weights(parse_tower("text", f"xlmr:{whisper}"))
    extractor = json.loads((whisper / "preprocessor_config.json").read_text())
    (whisper / "preprocessor_config.json").write_text(json.dumps({**extractor, "feature_size": 128}))
    with pytest.raises(TrainingError, match=r"weights for 80 mel bands and a feature extractor for 128"):
        WhisperClips(parse_tower("audio", f"whisper:{whisper}"))
    content = (whisper / "model.safetensors").read_bytes()
    (whisper / "model.safetensors").write_bytes(content[: len(content) // 2])
    (whisper / "preprocessor_config.json").write_text(json.dumps(extractor))
    with pytest.raises(TrainingError, match=r"cannot be loaded"):
        WhisperClips(parse_tower("audio", f"whisper:{whisper}"))


def test_without_a_network(tmp_path: Path) -> None:
    """Empty caches and a Hub that may not be asked, as on the node of a cluster; in a process of its own."""
    specs = ["image=clip:RN50@openai", "audio=whisper:openai/whisper-large-v3", "text=xlmr:xlm-roberta-large"]
    program = (
        "import sys\n"
        "from symile_m3.errors import TrainingError\n"
        "from symile_m3.towers.spec import parse_tower\n"
        "from symile_m3.towers.weights import find_weights\n"
        "for spec in sys.argv[1:]:\n"
        "    modality, _, text = spec.partition('=')\n"
        "    try: find_weights(parse_tower(modality, text))\n"
        "    except TrainingError as error: print(error)\n"
    )
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "HOME": str(tmp_path)}
    environment |= dict.fromkeys(("http_proxy", "https_proxy", "HTTPS_PROXY", "HTTP_PROXY"), "http://127.0.0.1:9")
    run = subprocess.run(
        [sys.executable, "-c", program, *specs], capture_output=True, text=True, env=environment, timeout=240
    )
    for line, spec in zip(run.stdout.splitlines(), specs, strict=True):
        assert line.startswith(f"{spec}: its weights are not on this machine and cannot be downloaded ("), run.stderr
        assert line.endswith("run again with a network, or name a local checkpoint")


def test_without_transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)  # as import finds a package that is not there
    with pytest.raises(MissingDependencyError, match=r"needs transformers, .*; pip install 'symile-m3\[paper\]'$"):
        find_weights(parse_tower("audio", "whisper:openai/whisper-large-v3"))


def test_fingerprints_are_of_the_content(tmp_path: Path) -> None:
    def fingerprint(folder: Path) -> str:
        return find_weights(parse_tower("text", f"xlmr:{folder}")).fingerprint()

    first, second = tiny_models.save_xlmr(tmp_path / "a"), tiny_models.save_xlmr(tmp_path / "b")
    assert fingerprint(first) == fingerprint(second)
    assert fingerprint(tiny_models.save_xlmr(tmp_path / "c", seed=1)) != fingerprint(first)
    config = json.loads((second / "config.json").read_text())
    (second / "config.json").write_text(json.dumps({**config, "layer_norm_eps": 1e-3}))
    assert fingerprint(second) != fingerprint(first)
