"""The announcement's table with ours beside it."""

from collections.abc import Mapping
from typing import Any

from ssd1b.demo import announcement
from ssd1b.demo.announcement import Figure
from ssd1b.demo.table import columns, gate_lines, stage_lines

NONE = "not given"


def comparison(results: Mapping[str, Any], numbers: Mapping[str, float | None], drawn: Mapping[str, Any]) -> str:
    """Return the table.

    results: what the jobs printed last, by step. numbers: of the evaluation, with intervals. drawn: medians of time and
    memory, see ssd1b.demo.one_picture.
    """
    distilled, measured = results["distill"], results["evaluate"]
    teacher, student = drawn["teacher"], drawn["student"]
    head = ("", "SDXL", "SSD-1B", "ratio", "nano teacher", "student", "ratio")
    rows = [
        head,
        row("UNet parameters", announcement.PARAMETERS, distilled["teacher_parameters"],
            distilled["student_parameters"], "{:,.0f}"),
        row("steps per second, batch 8", announcement.SPEED, 1000 / measured["step_ms_teacher"],
            1000 / measured["step_ms_student"], "{:.2f}"),
        row("seconds for a picture", announcement.PICTURE, teacher["seconds"], student["seconds"], "{:.2f}", True),
        row("memory to draw it, GB", announcement.MEMORY, teacher["peak_mib"] / 953.674, student["peak_mib"] / 953.674,
            "{:.2f}"),
    ]  # fmt: skip
    kept = [
        ("share of the teacher's score that is kept", "announced", "here", "95 %"),
        *(kept_line(what, numbers, name) for what, name in (
            ("all prompts", "score_kept"), ("trained", "train_score_kept"), ("held out", "heldout_score_kept"),
            ("distance to the teacher's pictures (unrelated: 1)", "distance_ratio"),
        )),
    ]  # fmt: skip
    cost = [
        ("what it took", "announced", "here"),
        ("steps", f"{announcement.STEPS.student:,.0f}",
         f"{sum(stage['steps'] for stage in distilled['stages'].values()):,}"),
        ("pictures with a caption", f"{announcement.PAIRS.student:,.0f}", f"{results['encode']['rows_kept']:,}"),
        ("time", f"{announcement.HOURS.student:,.0f} {announcement.HOURS.unit}",
         f"{results['distill']['wall_s'] / 60:.0f} minutes on this machine"),
    ]  # fmt: skip
    sources = [
        f"  {what}: {figure.source}"
        for what, figure in (
            ("parameters", announcement.PARAMETERS), ("steps per second", announcement.SPEED),
            ("picture, memory", announcement.PICTURE), ("steps", announcement.STEPS),
            ("pairs, time", announcement.PAIRS),
        )
    ]  # fmt: skip
    gates = columns(gate_lines(results["promote"]))
    parts = [columns(rows), columns(stage_lines(distilled)), columns(kept), gates, columns(cost)]
    return "\n\n".join([*parts, "\n".join(["sources of the announced figures:", *sources])])


def row(
    what: str, announced: Figure, teacher: float, student: float, form: str, less_is_better: bool = False
) -> tuple[str, ...]:
    """Return a line; its ratios are the student's to the teacher's, of times the other way round: how much faster."""
    assert announced.teacher is not None
    assert announced.student is not None
    sides = (announced.teacher, announced.student), (teacher, student)
    cells = [
        (form.format(one), form.format(other), f"{one / other if less_is_better else other / one:.2f}")
        for one, other in sides
    ]
    return (what, *cells[0], *cells[1])


def kept_line(what: str, numbers: Mapping[str, float | None], name: str) -> tuple[str, ...]:
    """Return what was measured with its interval; the announcement gives none of these."""
    value, low, high = (numbers.get(f"{name}{end}") for end in ("", "_low", "_high"))
    shown = "not measured" if value is None else f"{value:.2f}"
    interval = "" if low is None or high is None else f"{low:.2f} to {high:.2f}"
    return (what, NONE, shown, interval)
