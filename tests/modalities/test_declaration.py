"""What can be declared, and what each mistake is told."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from symile_m3.errors import UsageError
from symile_m3.modalities.declaration import read_declaration

GOOD = """
[data]
train = "train.tar"
val = ["a.tar", "b.tar"]
test = "s3://bucket/test-{0..3}.tar"

[modalities.xray]
member = "xray.npy"
shape = [3, 8, 8]
tower = "resnet18"

[modalities.labs]
member = ["one.npy", "two.npy"]
shape = [10]
tower = "mlp"
missing = true

[train]
epochs = 3
lr = 1
missing_p = {xray = 0.25}
"""


def declared(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "my.toml"
    path.write_text(text)
    return path


def test_a_declaration(tmp_path: Path) -> None:
    found = read_declaration(declared(tmp_path, GOOD))
    assert found.data.train == (str(tmp_path / "train.tar"),)
    assert found.data.val == (str(tmp_path / "a.tar"), str(tmp_path / "b.tar"))
    assert found.data.test == ("s3://bucket/test-{0..3}.tar",)
    xray, labs = found.config.modalities
    assert (xray.name, xray.shape, xray.kind, xray.fields) == ("xray", (3, 8, 8), "array", ("xray.npy",))
    assert labs.fields == ("one.npy", "two.npy")
    assert (found.config.steps, found.config.epochs, found.config.lr) == (0, 3.0, 1.0)
    assert found.config.missing == {"xray": 0.25, "labs": 0.0}
    assert found.config.learned == {"xray", "labs"}


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        ("[data]", "[data", "not TOML"),
        ("[train]", "[training]", "[training] is no table of a declaration; known: data, modalities, train"),
        ('tower = "resnet18"', 'towr = "resnet18"', "[modalities.xray] has no setting towr; known: name, member"),
        ('tower = "resnet18"', "", "[modalities.xray] lacks tower"),
        ('"resnet18"', '"resnet19"', "tower resnet19: unknown; known: resnet18, resnet50"),
        ('"resnet18"', '"conv-audio"', "tower conv-audio takes no array, which xray.npy is"),
        ('"resnet18"', '"conv-signal"', "tower conv-signal takes [times, leads] or [1, times, leads]"),
        ("shape = [3, 8, 8]", "shape = [8, 8]", "tower resnet18 takes [channels, height, width]"),
        ("shape = [3, 8, 8]", "shape = [3, 8, 0]", "shape: give that of one array"),
        ("shape = [3, 8, 8]", 'shape = "large"', "shape 'large': give a number"),
        ('member = "xray.npy"', 'member = "xray.pkl"', "member xray.pkl: its name must end in one of npy, jpg"),
        ('member = "xray.npy"', "member = []", "member: give the name of a member"),
        ('"two.npy"', '"one.npy"', "several different ones"),
        ("[modalities.xray]", '[modalities."x ray"]', "'x ray': give a name of small letters"),
        ("missing = true", "missing = 1", "missing 1: give a bool"),
        ('val = ["a.tar", "b.tar"]', "", "[data] give train, val and test, or all, or arrays"),
        ('test = "s3', 'label = "class"\ntest = "s3', "label class: give json:FIELD"),
        ('test = "s3', 'workers = -1\ntest = "s3', "workers -1: at least 0"),
        ('test = "s3', 'retrieve = "ecg"\ntest = "s3', "retrieve ecg: no such modality; known: xray, labs"),
        ('test = "s3', 'candidates = 1\ntest = "s3', "candidates 1: at least 2, or 0 for all samples"),
        ("epochs = 3", "epochs = 3\nsteps = 3", "3 steps and 3 epochs: give one of them"),
        ("{xray = 0.25}", "{ecg = 0.25}", "ecg: no modality; known: xray, labs"),
        ("lr = 1", "lr = true", "lr True: give a number"),
        ("lr = 1", "dim = 0", "dim 0: at least 1"),
    ],
)
def test_each_mistake_is_named_with_its_place(tmp_path: Path, before: str, after: str, says: str) -> None:
    assert before in GOOD
    path = declared(tmp_path, GOOD.replace(before, after, 1))
    with pytest.raises(UsageError, match=re.escape(says)) as raised:
        read_declaration(path)
    assert str(raised.value).startswith(f"{path}: ")


def test_arrays_have_no_labels_and_tars_only_one_form(tmp_path: Path) -> None:
    _, rest = GOOD.split("[modalities.xray]")
    for table, says in (
        ('arrays = "folder"\nlabel = "json:class"', "label json:class: a directory of arrays has none"),
        ('arrays = "folder"\nall = "x.tar"', "give train, val and test, or all, or arrays"),
        ('all = "x.tar"\nsplit = [0.5, 0.5]', "split [0.5, 0.5]: give three positive shares"),
    ):
        with pytest.raises(UsageError, match=re.escape(says)):
            read_declaration(declared(tmp_path, f"[data]\n{table}\n[modalities.xray]{rest}"))
    found = read_declaration(declared(tmp_path, f'[data]\narrays = "folder"\n[modalities.xray]{rest}'))
    assert found.data.arrays == str(tmp_path / "folder")


def test_one_modality_is_too_few(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="1 modalities: contrast needs at least two"):
        read_declaration(declared(tmp_path, GOOD.split("[modalities.labs]")[0]))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no\.toml: No such file or directory; give a TOML file"):
        read_declaration(tmp_path / "no.toml")
