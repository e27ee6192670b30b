"""Make the candidate the champion if every gate holds on its evaluation: python -m jobs.promote nano.

Serving follows the champion. Where a gate fails nothing moves and the exit status is 1, so that a pipeline stops.
"""

import json
from typing import Any

from ssd1b import tracking
from ssd1b.command import main, show
from ssd1b.evaluation.gates import decide, refuse_unlike_conditions
from ssd1b.evaluation.seen import read_conditions
from ssd1b.recipes.promote import RECIPES, Promote


def run(config: Promote) -> dict[str, Any]:
    version = tracking.version_of(config.name, config.candidate)
    if "evaluation" not in version.tags:
        raise ValueError(f"{version.uri} was never evaluated: run `python -m jobs.evaluate` before it is promoted")
    refuse_unlike_conditions(read_conditions(version.tags.get("evaluation_conditions", "{}")), config.scorer)
    gates = decide(json.loads(version.tags["evaluation"]), config.thresholds)
    for gate in gates:
        show(gate.message)
    promoted = all(gate.passes for gate in gates)
    if promoted:
        tracking.crown(config.name, config.champion, version.version)
    return {
        "model": version.uri,
        "promoted": promoted,
        "gates": {gate.name: {"value": gate.value, "passes": gate.passes} for gate in gates},
        "failed": [gate.message for gate in gates if not gate.passes],
    }


def command() -> None:
    """Run as a command; a refusal is a result, and so it is printed before the status says so."""
    outcome: dict[str, Any] = {}

    def job(config: Promote) -> dict[str, Any]:
        outcome.update(run(config))
        return outcome

    main(RECIPES, job)
    if not outcome["promoted"]:
        raise SystemExit(1)


if __name__ == "__main__":
    command()
