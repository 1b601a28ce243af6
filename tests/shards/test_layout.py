from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from symile_m3.shards import DatasetLayout, shard_name, shard_place, sidecar_path, split_of


def test_names() -> None:
    assert shard_name("train", 0, 16) == "train-00000-of-00016.tar"
    assert shard_name("test", 123456, 200000) == "test-123456-of-200000.tar"
    assert split_of("val-00000-of-00002.tar") == "val"
    assert split_of("other-00000-of-00002.tar") is None
    assert split_of("laion.tar") is None


@pytest.mark.parametrize("place", [("train", 0, 16), ("test", 123456, 200000), ("val", 99999, 100000)])
def test_a_name_tells_its_place(place: tuple[str, int, int]) -> None:
    assert shard_place(shard_name(*place)) == place


@pytest.mark.parametrize(
    "name", ["dev-00000-of-00001.tar", "train-00002-of-00002.tar", "train-000000-of-00002.tar", "laion.tar"]
)
def test_a_name_that_is_not_ours_tells_none(name: str) -> None:
    assert shard_place(name) is None


@pytest.mark.parametrize(("split", "i", "n"), [("dev", 0, 1), ("train", 1, 1), ("train", -1, 1)])
def test_bad_names(split: str, i: int, n: int) -> None:
    with pytest.raises(ValueError, match=r"split must be one of|shard -?1 of 1"):
        shard_name(split, i, n)


def test_places() -> None:
    layout = DatasetLayout(Path("m3"))
    name = "train-00000-of-00001.tar"
    places = [layout.readme, layout.shard(name), layout.plan, layout.index, layout.sidecar(name)]
    places += [layout.marker(name), layout.pool, layout.features]
    assert [str(place) for place in places] == [
        "m3/README.md",
        "m3/data/train-00000-of-00001.tar",
        "m3/.symile/plan.json",
        "m3/.symile/index.json",
        "m3/.symile/train-00000-of-00001.idx.npz",
        "m3/.symile/done/train-00000-of-00001.tar.json",
        "m3/.symile/pool",
        "m3/.symile/features",
    ]
    assert sidecar_path(Path("elsewhere/a.tar")) == Path("elsewhere/.symile/a.idx.npz")


def test_importing_the_package_loads_nothing_heavy() -> None:
    script = (
        "import sys, symile_m3.shards\n"
        "print([m for m in ('torch', 'PIL', 'soundfile', 'datasets', 'webdataset') if m in sys.modules])\n"
        "print([m for m in sys.modules if m.startswith('symile_m3.') and '.shards' not in m])"
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert done.stdout.splitlines() == ["[]", "['symile_m3._version']"]
