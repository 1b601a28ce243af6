"""A built dataset behind a URL: its plan, training, evaluation and verification, with the same outcome."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from remote_servers import Fault, serving

from symile_m3.audit import verify
from symile_m3.errors import NotBuiltError, PlanError, ShardError
from symile_m3.evaluate import evaluate
from symile_m3.features import FeatureConfig, open_dataset
from symile_m3.model import ModelConfig
from symile_m3.plan import load_plan
from symile_m3.recipe import TrainConfig
from symile_m3.train import train

SMALL = TrainConfig(
    features=FeatureConfig(image_views=1, audio_steps=4),
    model=ModelConfig(dim=16, image_hidden=16, text_buckets=16),
    steps=6,
    batch_size=16,
    evaluations=2,
)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "symile-m3" / "shards"


def losses(runs: Path) -> list[Any]:
    lines = (runs / "symile" / "metrics.jsonl").read_text().splitlines()
    return [(record["step"], record["loss"], record["val_top1"]) for record in map(json.loads, lines)]


def test_training_and_evaluation_by_url_give_the_figures_of_local_ones(
    tiny_dataset: Path, tmp_path: Path, cache: Path
) -> None:
    local, remote = tmp_path / "local", tmp_path / "remote"
    root = shutil.copytree(tiny_dataset, tmp_path / "data")
    with serving(tiny_dataset) as server:
        for shard in ("train-00000-of-00002.tar", "train-00001-of-00002.tar"):
            server.faults[shard].append(Fault(drop_after=20_000))
        train(server.url, remote, objectives=["symile"], config=SMALL)
        report = evaluate(server.url, remote)
        (features,) = cache.glob("*/.symile/features")
        shutil.copytree(features, root / ".symile" / "features")  # which saves making them again
        train(root, local, objectives=["symile"], config=SMALL)
        assert losses(remote) == losses(local)
        assert report == evaluate(root, local)
        tars = [name for method, name, _, _ in server.requests if name.endswith(".tar")]
        assert len(tars) == 4 + 2  # of four shards, two in two parts
    assert not (tiny_dataset / ".symile" / "features").exists()


def test_a_remote_dataset_is_verified_as_it_is_there_now(tiny_dataset: Path, tmp_path: Path, cache: Path) -> None:
    root = shutil.copytree(tiny_dataset, tmp_path / "data")
    with serving(root) as server:
        sound = verify(server.url, probes=False, workers=1)
        assert sound.ok
        assert sound.checks == verify(root, probes=False, workers=1).checks
        for reader in open_dataset(server.url).readers.values():
            assert all(reader.read(i, ("json",)) for i in range(len(reader)))  # the cache holds it whole
        path = root / "data" / "val-00000-of-00001.tar"
        content = bytearray(path.read_bytes())
        content[5000] ^= 1
        path.write_bytes(content)
        damaged = verify(server.url, probes=False, workers=1)
        assert [problem.partition(" does")[0] for problem in damaged.problems] == [
            f"{path.name}: {server.url}/data/{path.name}"
        ]


def test_a_plan_is_read_by_url(tiny_dataset: Path, tmp_path: Path) -> None:
    root = shutil.copytree(tiny_dataset, tmp_path / "data")
    with serving(root) as server:
        remote, local = load_plan(f"{server.url}/.symile/plan.json"), load_plan(root / ".symile" / "plan.json")
        assert remote.fingerprint == local.fingerprint
        with pytest.raises(NotBuiltError, match=f"no dataset in {server.url}/none: run"):
            load_plan(f"{server.url}/none/.symile/plan.json")
        (root / ".symile" / "plan.json").write_text("{")
        with pytest.raises(PlanError, match=f"{server.url}/.symile/plan.json: unreadable"):
            load_plan(f"{server.url}/.symile/plan.json")
        (root / ".symile" / "plan.json").unlink()
        with pytest.raises(NotBuiltError, match=f"no plan in {server.url}"):
            open_dataset(server.url)
    with pytest.raises(ShardError, match="would run a command"):
        open_dataset("pipe:cat")
