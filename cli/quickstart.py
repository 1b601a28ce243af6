"""`symile-m3 quickstart`: build, train and evaluate in a smaller setting."""

from __future__ import annotations

from pathlib import Path

from symile_m3.cli.options import JsonOption, WorkersOption

DATA = Path("data/quickstart")
RUNS = Path("runs/quickstart")


def quickstart(workers: WorkersOption = None, json_to: JsonOption = None) -> None:
    """Build, train and evaluate in one, in a smaller setting: five languages, a hundred classes.

    The dataset goes to data/quickstart, the runs to runs/quickstart. Interrupted, it goes on where it
    stopped when run again.
    """
    from symile_m3.cli import build, train
    from symile_m3.cli.eval import run_evaluation
    from symile_m3.cli.output import command, show
    from symile_m3.cli.progress import open_progress
    from symile_m3.cli.tables import evaluation_tables, facts
    from symile_m3.engines import WorkConfig
    from symile_m3.languages import parse_languages
    from symile_m3.plan import PlanConfig

    say = open_progress().say
    languages = parse_languages("5")
    config = PlanConfig(languages=languages, words=len(languages), classes=100, train=6_000, val=1_000, test=1_000)
    say(f"1 of 3: {command('build', '--langs', '5', '--classes', '100', '--data', DATA)}")
    result, seconds = build.run_build(DATA, config, work=WorkConfig(workers=workers), overwrite=False)
    say(f"2 of 3: {command('train', '--preset', 'quickstart', '--data', DATA, '--runs', RUNS)}")
    train.run_training(DATA, RUNS, objectives=train.OBJECTIVES, config=train.preset_config("quickstart"))
    say(f"3 of 3: {command('eval', '--missing-p', '0.5', '--data', DATA, '--runs', RUNS)}")
    report = run_evaluation(DATA, RUNS, missing_p=0.5)
    after = facts(
        "Where to look next",
        [
            (f"{DATA}/README.md", "what the dataset is, and how to read it"),
            (f"{DATA}/data", "the shards: WebDataset tars of jpg, flac, txt and json"),
            (f"{RUNS}/symile", "configuration, checkpoints, metrics and curves of a run"),
            (command("verify", "--data", DATA), "checks the dataset for damage and leaks"),
            (command("build", "--langs", "10"), "the full setting; then symile-m3 train and symile-m3 eval"),
        ],
    )
    figures = {"build": build.figures(result, DATA, seconds), **report}
    show([build.summary(result, DATA, seconds), *evaluation_tables(report), after], figures, json_to)
