"""`train --modalities`, `train --preset clinical` and `eval` of what they leave."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from script import error_of, symile_m3
from typer.main import get_command
from user_shards import block, write_user_shards

from symile_m3.cli.app import app
from symile_m3.cli.main import explain
from symile_m3.planted import PlantedConfig, write_planted


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards, and runs on them."""
    root = write_user_shards(tmp_path_factory.mktemp("declared") / "data")
    result = symile_m3("train", "--modalities", "my.toml", "--runs", "runs", "--steps", "6", "--json", "-", cwd=root)
    assert result.returncode == 0, result.stderr
    figures = json.loads(result.stdout)
    assert set(figures["results"]) == {"symile", "clip"}
    assert figures["config"]["steps"] == 6
    assert figures["data"] == "my.toml"
    return root


def failure(*words: str) -> str:
    """The line that the command would end with."""
    try:
        get_command(app).main(list(words), prog_name="symile-m3", standalone_mode=False)
    except Exception as error:
        status, line = explain(error)
        assert status in (1, 2)
        assert "unexpected" not in line
        return line
    raise AssertionError("it did not fail")


def test_the_runs_know_their_modalities_and_samples(root: Path, tmp_path: Path) -> None:
    result = symile_m3("eval", "--runs", root / "runs", "--bootstrap", "20", "--json", tmp_path / "eval.json")
    assert result.returncode == 0, result.stderr
    assert "Retrieval on 24 test samples" in result.stdout
    assert "age from xray, ecg, note" in result.stdout
    assert "In place of what a query does not show, Symile: what was learned for it or mean training" in result.stdout
    figures = json.loads((tmp_path / "eval.json").read_text())
    assert len(figures["questions"]) == 16
    asked = ("--retrieve", "note=xray", "--candidates", "4", "--missing-p", "0.2", "--json", "-")
    chosen = symile_m3("eval", "--modalities", root / "my.toml", "--runs", root / "runs", *asked)
    assert chosen.returncode == 0, chosen.stderr
    (question,) = json.loads(chosen.stdout)["questions"]
    assert (question["retrieve"], question["from"], question["candidates"]) == ("note", ["xray"], 4)


def test_a_run_is_exported(root: Path, tmp_path: Path) -> None:
    result = symile_m3("export", "--runs", root / "runs", "--objective", "clip", "--out", tmp_path / "out")
    assert result.returncode == 0, result.stderr
    assert "declaration.toml" in result.stdout
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == (
        root / "runs" / "clip" / "best.safetensors"
    ).read_bytes()


def test_every_setting_can_be_shown_and_changed(root: Path) -> None:
    words = ("--show-config", "--set", "dim=8", "--missing-p", "xray=.5", "--epochs", "2")
    result = symile_m3("train", "--modalities", "my.toml", *words, cwd=root)
    config = json.loads(result.stdout)["config"]
    assert (config["dim"], config["missing_p"]["xray"], config["steps"], config["epochs"]) == (8, 0.5, 0, 2.0)
    preset = json.loads(symile_m3("train", "--preset", "clinical", "--data", "arrays", "--show-config").stdout)
    assert preset["config"]["dim"] == 8192
    assert [one["tower"] for one in preset["config"]["modalities"]] == ["resnet50", "resnet18-1d", "mlp"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("[data]", "[data"), "my.toml: not TOML: "),
        (('"conv-image"', '"convimage"'), "my.toml: [modalities.xray] tower convimage: unknown; known: resnet18"),
        (('"xray.npy"', '"ct.npy"'), "train-0.tar: sample p00000: has no ct.npy (and 63 more)"),
        (("[1, 32, 32]", "[1, 16, 16]"), "xray: xray.npy has shape [1, 32, 32], declared is [1, 16, 16]"),
        (
            ("missing = true", "missing = false"),
            "has no ecg.npy (and 7 more); where samples may lack a modality, declare missing = true",
        ),
        (("shards/train", "shard/train"), "no such file (give a directory, a pattern or a list of paths)"),
        (("batch_size = 16", "batch_size = 100"), "--batch-size 100: there are 64 training samples"),
    ],
)
def test_a_mistake_is_named(
    root: Path, tmp_path: Path, change: tuple[str, str], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shards").symlink_to(root / "shards")
    text = (root / "my.toml").read_text()
    assert change[0] in text
    (tmp_path / "my.toml").write_text(text.replace(*change))
    assert says in failure("train", "--modalities", "my.toml", "--objective", "clip", "--runs", "runs")


@pytest.mark.parametrize(
    ("objective", "negatives", "says"),
    [
        (
            "triangle",
            "n",
            "objective triangle: it is for 3 modalities, and these are 4; symile, clip and",
        ),
        ("gram", "faces", "negatives faces: symile and sigmoid take them, not gram; leave them out"),
        ("sigmoid", "n2", "negatives 'n2': the sigmoid loss takes n, n:k and faces"),
        ("symile", "n3", "negatives 'n3': unknown; known: n, n:k"),
    ],
)
def test_what_an_objective_cannot_take_is_refused_before_anything_is_read(
    objective: str, negatives: str, says: str, tmp_path: Path
) -> None:
    (tmp_path / "my.toml").write_text(block("toml"))  # there are no shards beside it
    words = ("--objective", objective, "--set", f"negatives={negatives}", "--runs", str(tmp_path / "runs"))
    assert says in failure("train", "--modalities", str(tmp_path / "my.toml"), *words)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("train", "--modalities", "no.toml"), "no.toml: No such file or directory"),
        (("train", "--modalities", "my.toml", "--preset", "paper"), "--modalities and --preset paper: give one"),
        (("train", "--modalities", "my.toml", "--data", "x"), "leave --data out"),
        (("train", "--modalities", "my.toml", "--no-redraw"), "--no-redraw: only texts of triples"),
        (("train", "--modalities", "my.toml", "--set", "image_lr=1"), "--set image_lr: no such setting; known: steps"),
        (("train", "--modalities", "my.toml", "--missing-p", "ct=.5"), "--missing-p ct: no modality; known: xray"),
        (("train", "--preset", "clinical"), "--preset clinical: name the directory of the arrays with --data"),
        (("train", "--preset", "clinical", "--data", "none"), "none: no such directory; give that of the arrays"),
        (("train", "--preset", "clinical", "--data", "."), "no array cxr of train; sought train/cxr_train.npy"),
        (("eval", "--runs", "runs", "--retrieve", "ct"), "--retrieve ct: no modality 'ct'"),
        (("eval", "--runs", "runs", "--candidates", "few"), "few: give a number, or all"),
        (("eval", "--runs", "runs", "--gap"), "--gap: only for runs on triples"),
        (("eval", "--runs", "none", "--retrieve", "xray"), "--retrieve: only for runs on declared modalities"),
    ],
)
def test_wrong_words_are_named(root: Path, words: tuple[str, ...], says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    assert says in failure(*words)


def test_a_mistake_is_one_line_of_the_command(root: Path) -> None:
    result = symile_m3("train", "--modalities", "no.toml", cwd=root)
    assert result.returncode == 2
    assert error_of(result).startswith("no.toml: No such file or directory; give a TOML file")


@pytest.mark.slow
def test_the_clinical_preset_reads_arrays_and_evaluates_among_ten(tmp_path: Path) -> None:
    arrays = PlantedConfig(values=4, train=4, val=10, test=20, image=(3, 320, 320), listed=True, dtype="float16")
    write_planted(tmp_path / "mimic", arrays)
    tiny = ("--steps", "1", "--batch-size", "2", "--set", "dim=8", "--set", "evaluations=1")
    words = ("--preset", "clinical", "--data", "mimic", "--runs", "runs", "--objective", "clip")
    result = symile_m3("train", *words, *tiny, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    evaluated = symile_m3("eval", "--runs", "runs", "--retrieve", "cxr", "--json", "-", cwd=tmp_path)
    assert evaluated.returncode == 0, evaluated.stderr
    (question,) = json.loads(evaluated.stdout)["questions"]
    assert (question["from"], question["candidates"], question["n"]) == (["ecg", "labs"], 10, 2)
