"""Stage ``report``: the candidates are compared; metrics, plots, grid, page and model cards."""

import json
from collections.abc import Sequence

import numpy as np

from atelier import atomic, images
from atelier.config.profile import Profile
from atelier.criteria import tree
from atelier.criteria.annotations import Record
from atelier.criteria.stored.rows import StoredRows
from atelier.metrics import comparison
from atelier.reports import evaluation_page, image_grids, model_card
from atelier.reports.evaluation_data import Page
from tasks.commands import table
from tasks.evaluation import candidates, captions, evaluated
from tasks.evaluation.candidates import Candidate
from tasks.evaluation.evaluated import Evaluated
from tasks.reporting import report_page, tables
from tasks.run import paths
from tasks.tracking import registry
from tasks.tracking.mlflow_runs import StageRun


def run(profile: Profile, tracked: StageRun) -> None:
    """Compare what ``generate`` painted and ``evaluate`` measured; no network is loaded.

    Writes metrics, the metric suite, plots, the page and the cards under ``paths.REPORT``,
    brings the registry up to date and prints the table.

    Raises:
        ArtifactError: An input is absent.
    """
    criteria = tree.parse(paths.JUDGED_BY)
    compared = candidates.of(profile)
    found = evaluated.read()
    painted = {one.name: found.painted(one.name) for one in compared}
    records = captions.painted(captions.records(profile), profile.generate.prompts)
    scored = [
        name
        for name, entry in found.entries.items()
        if tables.is_by_picture(name) and not entry.unavailable
    ]
    results = comparison.compare(
        painted,
        found.measured,
        criteria,
        scores={
            metric: {name: evaluated.scores(metric, name) for name in painted}
            for metric in scored
        },
        captions=[record.caption for record in records],
        reference=candidates.BASE,
    )
    page = report_page.of(
        compared,
        found,
        painted,
        results,
        records,
        StoredRows(paths.SPLIT / "train.jsonl", Record),
        criteria,
        profile,
    )
    write(page, compared, found, profile, tracked)
    registry.run(evaluating=True)
    table.run()


def write(
    page: Page,
    compared: Sequence[Candidate],
    found: Evaluated,
    profile: Profile,
    tracked: StageRun,
) -> None:
    """Write everything that people, DVC and MLflow read of a page."""
    results = {name: painter.result for name, painter in page.painters.items()}
    metrics = {
        name: tables.headline(result, page.corrected.get(name))
        for name, result in results.items()
    }
    for name, painter in page.painters.items():
        metrics[name]["passes"] = painter.passes
        if painter.drift is not None:
            metrics[name]["drift"] = painter.drift
    atomic.write(paths.SUITES, json.dumps(metrics, indent=2) + "\n")
    suite = tables.suite(found.entries, found.extractor)
    atomic.write(paths.SUITE, json.dumps(suite, indent=2, ensure_ascii=False) + "\n")
    certified = tables.certified(page.certificate)
    atomic.write(paths.CERTIFIED, json.dumps(certified, indent=2, ensure_ascii=False) + "\n")
    for name, rows in tables.rows(results, page.prompts).items():
        atomic.write(paths.PLOTS / f"{name}.csv", tables.as_csv(rows))
    columns = page.prompts[: page.grid_prompts]
    shown = {name: one.painted.images[: len(columns)] for name, one in page.painters.items()}
    grid = image_grids.labelled(shown, columns)
    atomic.write(paths.PLOTS / "grid.png", images.png(np.asarray(grid)))
    atomic.write(paths.PAGE, evaluation_page.render(page))
    for subject in report_page.subjects(compared, profile):
        text = model_card.render(page, subject)
        atomic.write(paths.CARDS / subject.name / "README.md", text)
    tracked.metrics(
        {f"{name}/{key}": value for name, row in metrics.items() for key, value in row.items()}
    )
    tracked.picture("grid", grid)
    for file in (paths.PAGE, paths.SUITE, paths.CARDS, paths.PLOTS):
        tracked.file(file)
