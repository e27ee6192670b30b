"""Measure a registered student against its teacher: python -m jobs.evaluate nano.

Numbers and the contact sheet go into an MLflow run; the numbers also onto the version, where jobs.promote finds them.
"""

import json
import math
from dataclasses import replace
from typing import Any

from ssd1b import tracking
from ssd1b.command import main, show
from ssd1b.evaluation.compare import compare
from ssd1b.evaluation.gates import interval
from ssd1b.models import lineage
from ssd1b.recipes.evaluate import RECIPES, Evaluate


def run(config: Evaluate) -> dict[str, Any]:
    version = tracking.version_of(config.name, config.alias)
    tags = {"model": version.uri, "teacher": config.teacher}
    with tracking.run("evaluate", f"{version.name} {version.version}", tags=tags) as tracked:
        tracked.params(config)
        folder = tracking.download(version.uri)
        comparison = compare(config, str(folder))
        # JSON has no NaN: what could not be measured is null
        numbers = {name: round(x, 5) if math.isfinite(x) else None for name, x in comparison.numbers.items()}
        tracked.metrics(comparison.numbers)
        tracked.picture(comparison.sheet, "contact_sheet.png")
        how = (
            f"{config.prompts} held-out and {config.prompts} trained prompts, {config.steps} steps, seed {config.seed}"
        )
        if told := lineage.read(folder):
            found = lineage.Evaluation(against=config.teacher, how=how, numbers=numbers)
            told = lineage.card(replace(told, evaluation=found))
            tracked.text(told, lineage.CARD)
            tracking.describe(version.name, version.version, told)
    for key, value in (("", json.dumps(numbers)), ("_against", config.teacher), ("_run", tracked.run_id)):
        tracking.tag(version.name, version.version, f"evaluation{key}", value)
    main_numbers = {name: value for name, value in numbers.items() if not name.endswith(("_low", "_high"))}
    for name in main_numbers:
        show(f"{name:22s} {comparison.numbers[name]:>13,.4g} {interval(numbers, name)}")
    return {"model": version.uri, "teacher": config.teacher, "run": tracked.run_id, **main_numbers}


if __name__ == "__main__":
    main(RECIPES, run)
