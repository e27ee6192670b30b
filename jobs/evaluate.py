"""Measure a registered student against its teacher: python -m jobs.evaluate nano.

Numbers, pictures, the contact sheet, evaluation.json, which holds everything, and report.html, the page drawn from it,
go into an MLflow run; numbers and conditions also onto the version, where jobs.promote finds them.
"""

import json
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ssd1b import tracking
from ssd1b.command import main, show
from ssd1b.evaluation.compare import compare
from ssd1b.evaluation.gates import interval
from ssd1b.models import lineage
from ssd1b.recipes.evaluate import RECIPES, Evaluate
from ssd1b.report import document, runs


def run(config: Evaluate) -> dict[str, Any]:
    version = tracking.version_of(config.name, config.alias)
    tags = {"model": version.uri, "teacher": config.teacher}
    with (
        tracking.run("evaluate", f"{version.name} {version.version}", tags=tags) as tracked,
        tempfile.TemporaryDirectory() as aside,
    ):
        tracked.params(config)
        source, folder = tracking.download(version.uri), Path(aside)
        comparison = compare(config, str(source), folder)
        about = {"model": version.uri, "teacher": config.teacher, "when": document.now()}
        told = {**about, **comparison.result.document()}
        numbers = {name: None if value is None else round(value, 5) for name, value in told["numbers"].items()}
        tracked.metrics(comparison.numbers)
        tracked.picture(comparison.sheet, "contact_sheet.png")
        tracked.text(json.dumps(told, indent=1), "evaluation.json")
        tracked.artifact(folder)
        story = lineage.read(source)
        page = runs.keep(tracked, runs.evidence(told, folder, story))
        if story:
            found = lineage.Evaluation(against=config.teacher, how=comparison.result.how, numbers=numbers)
            card = lineage.card(replace(story, evaluation=found))
            tracked.text(card, lineage.CARD)
            tracking.describe(version.name, version.version, card)
    conditions = {name: asdict(each) for name, each in comparison.result.conditions.items()}
    for key, value in (("", json.dumps(numbers)), ("_conditions", json.dumps(conditions)),
                       ("_against", config.teacher), ("_run", tracked.run_id)):  # fmt: skip
        tracking.tag(version.name, version.version, f"evaluation{key}", value)
    main_numbers = {name: value for name, value in numbers.items() if not name.endswith(("_low", "_high"))}
    for name in main_numbers:
        show(f"{name:32s} {comparison.numbers[name]:>13,.4g} {interval(numbers, name)}")
    show(f"the page is at {page}")
    return {"model": version.uri, "teacher": config.teacher, "run": tracked.run_id, "report": page, **main_numbers}


if __name__ == "__main__":
    main(RECIPES, run)
