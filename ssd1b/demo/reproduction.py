"""The announcement's story at nano scale: teacher, three stages under three teachers, student, and the table."""

import json
from typing import Any

from ssd1b import tracking
from ssd1b.command import show
from ssd1b.demo.comparison import comparison
from ssd1b.demo.gallery import draw_local, write_results
from ssd1b.demo.one_picture import in_turns
from ssd1b.demo.steps import run_steps
from ssd1b.evaluation.sheet import sheet
from ssd1b.home import home
from ssd1b.recipes.demo import Demo


def reproduce(config: Demo) -> dict[str, Any]:
    """Run every step, measure both models in fresh processes, draw the gallery, print the table.

    Raises:
        ValueError: no cluster is named, or a job failed.
    """
    results = run_steps(config.steps)
    stages = [home() / "distill" / config.run / f"stage-{stage}" for stage in config.stages]
    show("\nmeasuring pictures one at a time, each model in fresh processes, in turns")
    drawn = in_turns({"teacher": config.teacher, "student": str(stages[-1])})
    show("drawing the gallery")
    sources = {f"teacher\n{config.teacher}": config.teacher} | {
        f"stage {i}\n{name}": str(stage) for i, (name, stage) in enumerate(zip(config.stages, stages, strict=True), 1)
    }
    pictures = [draw_local(config, source) for source in sources.values()]
    out = home() / "reproduce" / "gallery.png"
    out.parent.mkdir(parents=True, exist_ok=True)
    sheet(config.prompts, list(sources), list(zip(*pictures, strict=True))).save(out)
    numbers = json.loads(tracking.version_of(config.run, "candidate").tags["evaluation"])
    show("\n" + comparison(results, numbers, drawn))
    show(f"\ngallery   {out}\nreport    {results['evaluate']['report']}\nMLflow    make ui")
    results["drawn"] = drawn
    return {
        "gallery": str(out),
        "results": str(write_results(results, "reproduce")),
        "parameters_ratio": results["distill"]["student_parameters"] / results["distill"]["teacher_parameters"],
        "speed_ratio": drawn["teacher"]["seconds"] / drawn["student"]["seconds"],
        "memory_ratio": drawn["student"]["peak_mib"] / drawn["teacher"]["peak_mib"],
        **{name: numbers[name] for name in ("score_kept", "score_kept_low", "score_kept_high", "distance_ratio")},
        "promoted": results["promote"]["promoted"],
    }
