"""A built dataset behind a URL: its plan, training, evaluation and verification, with the same outcome."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from remote_servers import Fault, HttpServer, serving

from symile_m3.audit import verify
from symile_m3.errors import DamagedSampleError, NotBuiltError, PlanError, ShardError
from symile_m3.evaluate import evaluate
from symile_m3.features import FeatureConfig, open_dataset
from symile_m3.info import describe_dataset
from symile_m3.model import ModelConfig
from symile_m3.plan import load_plan
from symile_m3.preview import preview_page
from symile_m3.recipe import TrainConfig
from symile_m3.shards import DatasetReader, ShardIndex
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
        shutil.copytree(features, root / ".symile" / "features", dirs_exist_ok=True)  # which saves making them again
        train(root, local, objectives=["symile"], config=SMALL)
        assert losses(remote) == losses(local)
        reports = [report, evaluate(root, local)]
        for one in reports:
            del one["results"]["symile"]["runs"]  # directories, which differ
        assert reports[0] == reports[1]
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


def test_a_plan_that_was_altered_in_the_cache_is_fetched_again(tiny_dataset: Path, cache: Path) -> None:
    with serving(tiny_dataset) as server:
        plan = open_dataset(server.url).plan
        (copy,) = cache.rglob("plan.json")
        damages: list[Callable[[bytes], bytes]] = [
            lambda data: data[: len(data) // 2],
            lambda data: data.replace(b'"seed": 0', b'"seed": 1'),
        ]
        for damage in damages:
            sound = copy.read_bytes()
            copy.write_bytes(damage(sound))
            assert copy.read_bytes() != sound
            assert open_dataset(server.url).plan == plan
            assert copy.read_bytes() == sound


def test_a_plan_that_is_damaged_or_not_there_is_named_by_its_url(tiny_dataset: Path, tmp_path: Path) -> None:
    root = shutil.copytree(tiny_dataset, tmp_path / "data")
    path = root / ".symile" / "plan.json"
    with serving(root) as server:
        path.write_bytes(path.read_bytes()[:-2])
        message = f"^{server.url}/.symile/plan.json: unreadable"
        uses: list[Callable[[str], object]] = [open_dataset, describe_dataset]
        for use in uses:
            with pytest.raises(PlanError, match=message):
                use(server.url)
        assert re.match(message, verify(server.url, probes=False, workers=1).problems[0])
        path.unlink()
        for use in (*uses, partial(verify, probes=False)):
            with pytest.raises(NotBuiltError, match=f"^no plan in {server.url}: only datasets that"):
                use(server.url)


def tars_of(server: HttpServer) -> list[tuple[str, int]]:
    """The GET requests for shards, with their status."""
    return [(name, status) for method, name, _, status in server.requests if method == "GET" and name.endswith(".tar")]


def test_a_dataset_is_described_by_url_without_fetching_a_shard(tiny_dataset: Path, tmp_path: Path) -> None:
    local = describe_dataset(tiny_dataset)
    with serving(tiny_dataset) as server:
        server.faults["train-00000-of-00002.tar"].extend([Fault(status=503), Fault(drop_after=900)])
        remote = describe_dataset(f"{server.url}/")
        assert replace(remote, data=local.data) == local
        assert remote.data == server.url
        assert {status for _, status in tars_of(server)} == {206, 503}
        assert not list((tmp_path / "cache").rglob("*.tar"))
        server.requests.clear()
        part = describe_dataset(server.url, max_remote_clips=5).splits["train"].speech
        assert (part.clips, part.measured) == (local.splits["train"].speech.clips, 5)
        assert len(tars_of(server)) == 15
        assert len({name for name, _ in tars_of(server)}) == 3  # shards


@pytest.mark.parametrize("ranges", [True, False])
def test_a_preview_by_url_is_that_of_the_directory(tiny_dataset: Path, tmp_path: Path, ranges: bool) -> None:
    local = preview_page(tiny_dataset, "train", samples=6, seed=2)
    with serving(tiny_dataset, ranges=ranges) as server:
        server.faults["train-00001-of-00002.tar"].append(Fault(drop_after=300))
        remote = preview_page(server.url, "train", samples=6, seed=2)
        assert remote == local
        if ranges:
            assert {status for _, status in tars_of(server)} == {206}
            assert len(tars_of(server)) == 6 + 1  # one was dropped
            assert not list((tmp_path / "cache").rglob("*.tar"))
        else:
            assert len(list((tmp_path / "cache").rglob("*.tar"))) == 2
        assert describe_dataset(server.url).splits == describe_dataset(tiny_dataset).splits


def test_a_sample_asked_for_alone_is_checked(tiny_dataset: Path, tmp_path: Path) -> None:
    root = shutil.copytree(tiny_dataset, tmp_path / "data")
    name = "val-00000-of-00001.tar"
    local = DatasetReader(root, "val")
    at = int(ShardIndex.open(root / "data" / name).offsets[3, 0])
    with serving(root) as server:
        server.faults[name].append(Fault(alter=600))  # on its way
        reader = DatasetReader(server.url, "val", whole=False)
        assert reader.read(3) == local.read(3)
        content = bytearray((root / "data" / name).read_bytes())
        content[at + 9] ^= 1
        (root / "data" / name).write_bytes(content)
        with pytest.raises(DamagedSampleError, match="the bytes of its jpg were altered"):
            reader.read(3)
        assert reader.read(2) == local.read(2)


def test_what_cannot_be_shown_by_url_is_one_line(tiny_dataset: Path, tmp_path: Path) -> None:
    root = shutil.copytree(tiny_dataset, tmp_path / "data")
    with serving(root) as server:
        for show in (describe_dataset, preview_page):
            with pytest.raises(ShardError, match=rf"^{server.url}/none/\.symile/index\.json: no dataset there"):
                show(f"{server.url}/none")  # type: ignore[operator]
        (root / ".symile" / "plan.json").unlink()
        for show in (describe_dataset, preview_page):
            with pytest.raises(NotBuiltError, match=f"^no plan in {server.url}: only datasets"):
                show(server.url)  # type: ignore[operator]


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
