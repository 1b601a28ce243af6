"""Training on declared modalities and retrieving any of them from any others, through the same loop as triples."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from user_shards import write_user_shards

from symile_m3.errors import NotBuiltError, TrainingError, UsageError
from symile_m3.modalities.candidates import draw_candidates, ranks_among
from symile_m3.modalities.clinical import clinical
from symile_m3.modalities.declaration import Declaration, DeclaredConfig, read_declaration
from symile_m3.modalities.evaluation import evaluate_declared
from symile_m3.modalities.questions import all_questions, parse_question
from symile_m3.modalities.saved import read_declared
from symile_m3.modalities.splits import open_splits
from symile_m3.modalities.task import DeclaredTask
from symile_m3.modalities.towers import new_model
from symile_m3.modalities.training import train_declared
from symile_m3.objectives import OBJECTIVES, get_objective
from symile_m3.objectives.scores import symile_scores
from symile_m3.planted import PlantedConfig, write_planted
from symile_m3.processes import open_place
from symile_m3.progress import NoProgress
from symile_m3.recipe import RunOptions
from symile_m3.run import Run


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_user_shards(tmp_path_factory.mktemp("training") / "data")


@pytest.fixture(scope="module")
def runs(root: Path) -> Path:
    """Both objectives on the declaration of the documentation."""
    train_declared(read_declaration(root / "my.toml"), root / "runs")
    return root / "runs"


class Stop(NoProgress):
    """Presses Ctrl-C when a task has done so many units."""

    def __init__(self, at: int) -> None:
        self.at = at

    @contextmanager
    def task(self, label: str, total: int, unit: str, done: int = 0) -> Iterator[Any]:
        outer = self

        class Counting:
            units = done

            def advance(self, count: int = 1, note: str = "") -> None:
                self.units += count
                if self.units == outer.at and count:
                    raise KeyboardInterrupt

        yield Counting()


def test_every_modality_is_retrieved_from_all_others_and_from_each_alone(runs: Path) -> None:
    report = evaluate_declared(runs, bootstrap=50)
    asked = [(question["retrieve"], tuple(question["from"])) for question in report["questions"]]
    assert len(asked) == len(set(asked)) == 4 * (1 + 3)
    assert asked[0] == ("xray", ("ecg", "note", "age"))
    first = report["questions"][0]
    assert (first["n"], first["candidates"]) == (24, 24)
    assert first["chance"] == pytest.approx(0.25)  # four classes, all of one being right
    for name in ("symile", "clip"):
        found = first["results"][name]
        assert found["ci95"][0] <= found["top1"] <= found["ci95"][1]
        assert found["top1"] <= found["mrr"] <= 1
    assert first["results"]["clip"]["top1"] > 0.6  # each pair tells the class
    missing = next(question for question in report["questions"] if question["from"] == ["ecg"])
    assert missing["n"] == 21  # a sample without one cannot ask with it alone
    retrieved = next(question for question in report["questions"] if question["retrieve"] == "ecg")
    assert (retrieved["n"], retrieved["candidates"]) == (21, 21)
    assert report["fill"]["symile"] == "what was learned for it or mean training representation"
    assert set(first["differences"]) == {"symile - clip"}


def test_an_interrupted_run_goes_on_to_the_same_weights(root: Path, runs: Path, tmp_path: Path) -> None:
    declaration = read_declaration(root / "my.toml")
    with pytest.raises(KeyboardInterrupt):
        train_declared(declaration, tmp_path, objectives=["symile"], progress=Stop(7))
    (summary,) = train_declared(declaration, tmp_path, objectives=["symile"])
    assert summary.steps == 20
    whole, resumed = (safetensors.torch.load_file(of / "symile" / "last.safetensors") for of in (runs, tmp_path))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    config = json.loads((tmp_path / "symile" / "config.json").read_text())
    assert config["modalities"][0]["tower"] == "conv-image"


class Noting(NoProgress):
    """Keeps the notes of steps and of evaluations."""

    def __init__(self) -> None:
        self.steps: list[str] = []
        self.evaluations: list[str] = []

    @contextmanager
    def task(self, label: str, total: int, unit: str, done: int = 0) -> Iterator[Any]:
        outer = self

        class Task:
            def advance(self, count: int = 1, note: str = "") -> None:
                (outer.steps if count else outer.evaluations).append(note)

        yield Task()


def test_progress_shows_the_loss_of_the_step_and_what_the_last_evaluation_found(root: Path, tmp_path: Path) -> None:
    declaration = read_declaration(root / "my.toml")
    short = replace(declaration, config=replace(declaration.config, steps=6, evaluations=2))
    notes = Noting()
    train_declared(short, tmp_path, objectives=["clip"], options=RunOptions(logs=("csv",)), progress=notes)
    losses = [line.split(",")[1] for line in (tmp_path / "clip" / "steps.csv").read_text().splitlines()[1:]]
    records = [json.loads(line) for line in (tmp_path / "clip" / "metrics.jsonl").read_text().splitlines()]
    found = [f"  val top-1 {of['val_top1']:.3f}  {of['samples_per_s']:,.0f} samples/s" for of in records]
    assert notes.steps == [f"loss {float(loss):.2f}{(['', found[0]])[i >= 3]}" for i, loss in enumerate(losses)]
    assert len(set(notes.steps)) == 6
    assert notes.evaluations == [f"loss {of['loss']:.2f}{what}" for of, what in zip(records, found, strict=True)]


@pytest.mark.parametrize(("names", "most"), [(("xray", "note", "age"), 15), (("xray", "note"), 16)])
def test_the_loss_of_training_is_set_against_its_ceiling_and_called_no_bound(
    names: tuple[str, ...], most: int, root: Path, tmp_path: Path
) -> None:
    declaration = read_declaration(root / "my.toml")
    modalities = tuple(of for of in declaration.config.modalities if of.name in names)
    config = replace(declaration.config, modalities=modalities, steps=1, evaluations=1)
    notes = Noting()
    train_declared(replace(declaration, config=config), tmp_path, objectives=["symile"], progress=notes)
    (record,) = [json.loads(line) for line in (tmp_path / "symile" / "metrics.jsonl").read_text().splitlines()]
    assert record["bound_nats"] == pytest.approx(math.log(most) - record["loss"])
    assert notes.steps == [f"loss {record['loss']:.2f}  ln {most} - loss {record['bound_nats']:.2f} nats"]


def test_a_batch_too_small_for_a_bound_has_none(root: Path, tmp_path: Path) -> None:
    declaration = read_declaration(root / "my.toml")
    config = replace(declaration.config, batch_size=3, steps=1, evaluations=1)  # of four modalities
    train_declared(replace(declaration, config=config), tmp_path, objectives=["symile"])
    (record,) = [json.loads(line) for line in (tmp_path / "symile" / "metrics.jsonl").read_text().splitlines()]
    assert "bound_nats" not in record


def test_what_differs_in_a_modality_is_named(root: Path, runs: Path) -> None:
    declaration = read_declaration(root / "my.toml")
    *others, age = declaration.config.modalities
    config = replace(declaration.config, modalities=(*others, replace(age, hidden=(8,))))
    with pytest.raises(TrainingError, match=r"recipe: modalities\.age\.hidden \[16\] \(asked: \[8\]\)\. Name"):
        train_declared(replace(declaration, config=config), runs)


def test_another_recipe_and_other_samples_are_refused(root: Path, runs: Path, tmp_path: Path) -> None:
    declaration = read_declaration(root / "my.toml")
    other = replace(declaration, config=replace(declaration.config, dim=32))
    with pytest.raises(TrainingError, match="dim 64 \\(asked: 32\\)"):
        train_declared(other, runs)
    elsewhere = read_declaration(write_user_shards(tmp_path / "other", test=8) / "my.toml").data
    with pytest.raises(TrainingError, match="was trained on other samples than these"):
        evaluate_declared(runs, data=elsewhere)
    with pytest.raises(NotBuiltError, match="no trained run in"):
        evaluate_declared(tmp_path)


def test_a_run_from_before_a_setting_was_there_is_of_the_recipe_with_what_was_done_then(
    root: Path, runs: Path, tmp_path: Path
) -> None:
    before = shutil.copytree(runs, tmp_path / "runs")
    for name in ("symile", "clip"):
        path = before / name / "config.json"
        record = json.loads(path.read_text())
        del record["log_scale_offset"], record["soft_targets"]
        path.write_text(json.dumps(record))
    found = train_declared(read_declaration(root / "my.toml"), before)
    assert [summary.steps for summary in found] == [20, 20]
    assert read_declared(before / "clip") == read_declared(runs / "clip")


def test_other_recipes_stand_side_by_side(root: Path, runs: Path, tmp_path: Path) -> None:
    declaration = read_declaration(root / "my.toml")
    *others, age = declaration.config.modalities
    changed = replace(declaration.config, dim=32, modalities=(*others, replace(age, hidden=(8,))))
    for seed in (0, 1):
        one = replace(declaration, config=replace(changed, seed=seed))
        train_declared(one, tmp_path / str(seed), objectives=["symile"])
    report = evaluate_declared([runs, tmp_path / "0", tmp_path / "1"], retrieve=["xray"], bootstrap=20)
    first, second = "symile, dim=64, age.hidden=16", "symile, dim=32, age.hidden=8"
    assert {row: len(of) for row, of in report["runs"].items()} == {first: 1, second: 2, "clip": 1}
    (question,) = report["questions"]
    assert list(question["results"]) == list(report["recipes"]) == [first, second, "clip"]
    assert {pair: of["runs"] for pair, of in question["differences"].items()} == {  # in the one seed of both
        f"{first} - {second}": 1,
        f"{first} - clip": 1,
        f"{second} - clip": 1,
    }
    alone = evaluate_declared(runs, retrieve=["xray"], bootstrap=20)["questions"][0]["results"]
    assert [question["results"][row] for row in (first, "clip")] == [alone[name] for name in ("symile", "clip")]
    renamed = replace(declaration.config, modalities=(*others, replace(age, name="years")))
    train_declared(replace(declaration, config=renamed), tmp_path / "renamed", objectives=["clip"])
    with pytest.raises(TrainingError, match="are of other modalities, or members of them"):
        evaluate_declared([runs, tmp_path / "renamed"])


def test_questions_are_chosen_hidden_and_put_to_few_candidates(runs: Path) -> None:
    report = evaluate_declared(runs, retrieve=["xray=note,age", "age"], candidates=5, missing_p=0.5, bootstrap=20)
    first, second = report["questions"]
    assert first["from"] == ["note", "age"]
    assert second["from"] == ["xray", "ecg", "note"]
    assert first["candidates"] == second["candidates"] == 5
    assert first["chance"] == pytest.approx(0.2)
    again = evaluate_declared(runs, retrieve=["xray=note,age", "age"], candidates=5, missing_p=0.5, bootstrap=20)
    assert again == report
    shown = evaluate_declared(runs, retrieve=["xray=note,age"], candidates=5, bootstrap=20)["questions"][0]
    assert shown["results"]["clip"]["top1"] > first["results"]["clip"]["top1"]


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"retrieve": ["ct"]}, "--retrieve ct: no modality 'ct'; known: xray, ecg, note, age"),
        ({"retrieve": ["xray=xray"]}, "--retrieve xray=xray: give each modality once"),
        ({"candidates": 24}, "24 candidates: sample p00080 has only 18 others with another label"),
        ({"candidates": 1}, "--candidates 1: at least 2, or all"),
        ({"missing_p": 1.0}, "--missing-p 1.0: a probability"),
        ({"bootstrap": 0}, "--bootstrap 0"),
    ],
)
def test_what_cannot_be_asked_is_refused(runs: Path, asked: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says.replace("(", "\\(")):
        evaluate_declared(runs, **asked)


def test_towers_of_the_user_hidden_modalities_and_splits_by_key(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_towers.py").write_text(
        "import torch\n"
        "class Pixels(torch.nn.Module):\n"
        "    def __init__(self, config, dim):\n"
        "        super().__init__()\n"
        "        self.linear, self.norm = torch.nn.Linear(3, dim), torch.nn.LayerNorm(dim)\n"
        "        self.gone, self.learns_missing = torch.nn.Parameter(torch.randn(dim)), True\n"
        "    def forward(self, pixels, missing=None):\n"
        "        mapped = self.linear(pixels.mean(dim=(2, 3)))\n"
        "        return self.norm(torch.where(missing[:, None], self.gone, mapped))\n"
        "def pixels(config, *, dim, learns_missing):\n"
        "    assert learns_missing and config.name == 'photo'\n"
        "    return Pixels(config, dim)\n"
        "def nothing(config, *, dim, learns_missing):\n"
        "    return 3\n"
    )
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "own.toml"
    path.write_text(
        f'[data]\nall = "{root}/shards/*.tar"\nsplit = [0.6, 0.2, 0.2]\ncandidates = 4\nlabel = "json:class"\n'
        '[modalities.photo]\nmember = "photo.png"\nshape = [3, 8, 8]\ntower = "my_towers:pixels"\n'
        '[modalities.sound]\nmember = "sound.wav"\nseconds = 0.3\ntower = "conv-audio"\n'
        '[modalities.labs]\nmember = "json:labs"\nshape = [2]\ntower = "mlp"\nhidden = [8]\n'
        "[train]\ndim = 16\nsteps = 4\nbatch_size = 12\nmissing_p = 0.4\nevaluations = 1\n"
    )
    declaration = read_declaration(path)
    train_declared(declaration, tmp_path / "runs", objectives=["symile"])
    report = evaluate_declared(tmp_path / "runs", bootstrap=10)
    assert report["fill"] == {"symile": "what was learned for it"}
    assert {question["candidates"] for question in report["questions"]} == {4}
    for factory, says in (
        ("my_towers:none", "the module has no none"),
        ("no_such:none", "no module no_such; it must be importable from here"),
        ("my_towers:nothing", "made int, not a torch.nn.Module"),
    ):
        path.write_text(path.read_text().replace("my_towers:pixels", factory))
        with pytest.raises(UsageError, match=says):
            train_declared(read_declaration(path), tmp_path / "others", objectives=["symile"])
        path.write_text(path.read_text().replace(factory, "my_towers:pixels"))


def test_a_planted_dependence_of_three_is_found_by_symile_and_not_by_pairs(tmp_path: Path) -> None:
    """The preset's own reading and retrieval among the listed ten, with small towers and shapes."""
    arrays = PlantedConfig(
        values=4, train=640, val=50, test=1000, image=(3, 16, 16), signal=(1, 64, 12), listed=True, noise=0.2
    )
    for planted, objectives in ((True, ("symile", "clip")), (False, ("symile",))):
        root = write_planted(tmp_path / str(planted), replace(arrays, planted=planted))
        train_declared(small(clinical(root), arrays), root / "runs", objectives=objectives)
        (question,) = evaluate_declared(root / "runs", retrieve=["cxr"])["questions"]
        assert (question["n"], question["candidates"], question["chance"]) == (100, 10, pytest.approx(0.1))
        found = question["results"]
        if planted:
            assert found["symile"]["ci95"][0] > found["clip"]["ci95"][1], found
        at_chance = found["clip" if planted else "symile"]["top1"]
        assert abs(at_chance - 0.1) < 0.1, found  # more than three deviations


def small(declaration: Declaration, arrays: PlantedConfig) -> Declaration:
    """The preset with other towers, for other shapes."""
    changes = {
        "cxr": {"tower": "conv-image", "shape": arrays.image},
        "ecg": {"tower": "conv-signal", "shape": arrays.signal},
        "labs": {"hidden": (64,)},
    }
    modalities = tuple(replace(one, **changes[one.name]) for one in declaration.config.modalities)  # type: ignore[arg-type]
    config = DeclaredConfig(modalities=modalities, dim=64, steps=50, batch_size=64, lr=5e-3, evaluations=1)
    return replace(declaration, config=config)


def test_one_step_of_the_clinical_preset_at_the_published_shapes(tmp_path: Path) -> None:
    """ResNet-50, ResNet-18 and the perceptron, D 8192, on a batch of 4."""
    arrays = PlantedConfig(values=4, train=4, val=4, test=4, dtype="float16")
    preset = clinical(write_planted(tmp_path / "arrays", arrays))
    assert [(one.tower, one.shape) for one in preset.config.modalities] == [
        ("resnet50", (3, 320, 320)),
        ("resnet18-1d", (1, 5000, 12)),
        ("mlp", (100,)),
    ]
    assert (preset.config.dim, preset.data.candidates, preset.data.retrieve) == (8192, 10, "cxr")
    config = replace(preset.config, batch_size=4, steps=1, epochs=0.0)
    declaration = replace(preset, config=config)
    objective = get_objective("symile")
    task = DeclaredTask(declaration, open_splits(declaration))
    model = new_model(config, objective)
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    run = Run(task, objective, config, model, tmp_path, open_place(), options=RunOptions())
    figures = run._take_step(next(iter(run.loader)))
    assert math.isfinite(figures["loss"])
    shapes = {name: tuple(weight.shape) for name, weight in model.named_parameters()}
    assert shapes["towers.cxr.linear.weight"] == (8192, 2048)
    assert shapes["towers.ecg.linear.weight"] == (8192, 512)
    assert shapes["towers.ecg.net.net.conv1.weight"] == (64, 1, 7, 7)
    assert shapes["towers.labs.net.1.weight"] == (256, 100)
    assert shapes["towers.labs.linear.weight"] == (8192, 1024)
    assert all(not torch.equal(weight, before[name]) for name, weight in model.named_parameters())


def test_ranks_among_own_candidates_are_those_of_counting() -> None:
    draw = torch.Generator().manual_seed(0)
    queries = [torch.randn(20, 8, generator=draw), torch.randn(20, 8, generator=draw)]
    candidates = torch.randn(30, 8, generator=draw)
    candidates[5] = candidates[4]  # equal scores earn nothing
    lists = torch.stack([torch.randperm(30, generator=draw)[:6] for _ in range(20)])
    lists[0, :2] = torch.tensor([4, 5])
    lists[1, 3:] = -1
    expected = []
    for i, row in enumerate(lists.tolist()):
        scores = [float((queries[0][i] * queries[1][i] * candidates[j]).sum()) for j in row if j >= 0]
        expected.append(1 + sum(score >= scores[0] - 1e-6 for score in scores[1:]))
    assert ranks_among(symile_scores, queries, candidates, lists).tolist() == expected


def test_drawn_candidates_hold_the_own_sample_first_and_no_other_of_its_label() -> None:
    labels = torch.arange(40) % 5
    keys = [f"k{i}" for i in range(40)]
    allowed = torch.arange(40) != 7
    queries = torch.tensor([0, 3, 11])
    lists = draw_candidates(keys, labels, queries, allowed, 10, seed=1)
    assert lists[:, 0].tolist() == [0, 3, 11]
    assert all(len(set(row)) == 10 and 7 not in row for row in lists.tolist())
    assert not (labels[lists[:, 1:]] == labels[queries][:, None]).any()
    assert torch.equal(lists, draw_candidates(keys, labels, queries, allowed, 10, seed=1))
    assert not torch.equal(lists, draw_candidates(keys, labels, queries, allowed, 10, seed=2))
    assert torch.equal(lists[1:], draw_candidates(keys, labels, queries[1:], allowed, 10, seed=1))


def test_questions_of_two_modalities_are_two() -> None:
    assert [str(question) for question in all_questions(["a", "b"])] == ["a from b", "b from a"]
    assert parse_question("c=b,a", ["a", "b", "c"]).given == ("a", "b")


@pytest.mark.parametrize("change", [{"values": 1}, {"values": 17}, {"test": 0}, {"image": (3, 2, 2)}])
def test_what_cannot_be_planted_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"from 2 to 16|needs a sample|too small"):
        PlantedConfig(**change)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_everything_learns_at_one_rate_and_products_begin_with_the_scale_that_is_set(name: str, root: Path) -> None:
    declaration = read_declaration(root / "my.toml")
    config = replace(declaration.config, modalities=declaration.config.modalities[1:], symile_log_scale=-7.0)
    objective = get_objective(name)
    model = new_model(config, objective)
    groups = DeclaredTask(replace(declaration, config=config), {}).groups(model)
    assert {group["peak"] for group in groups} == {config.lr}
    trained = {id(parameter) for group in groups for parameter in group["params"]}
    assert trained == {id(parameter) for parameter in model.parameters()}
    assert (model.log_scale.item() == -7.0) == (name in ("symile", "sigmoid", "gated", "soft"))


@pytest.mark.parametrize("name", [name for name in OBJECTIVES if name not in ("symile", "clip")])
def test_every_objective_trains_and_retrieves_three_declared_modalities(name: str, root: Path, tmp_path: Path) -> None:
    declaration = read_declaration(root / "my.toml")
    xray, _, note, age = declaration.config.modalities
    config = replace(declaration.config, modalities=(xray, note, age), dim=8, steps=2, evaluations=1)
    train_declared(replace(declaration, config=config), tmp_path, objectives=[name])
    report = evaluate_declared(tmp_path, bootstrap=10)
    assert all(0 <= question["results"][name]["top1"] <= 1 for question in report["questions"])
