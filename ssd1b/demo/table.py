"""What the demo measured, as a table that fits a terminal."""

import os
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from ssd1b.recipes.demo import Demo


def table(config: Demo, results: Mapping[str, Any]) -> str:
    """Return the table of a finished demo; results maps step names to what their jobs printed last."""
    distilled, measured, promoted = results["distill"], results["evaluate"], results["promote"]
    lines = [
        ("", "teacher", "student", "ratio"),
        (
            "UNet parameters",
            f"{distilled['teacher_parameters']:,}",
            f"{distilled['student_parameters']:,}",
            f"{distilled['student_parameters'] / distilled['teacher_parameters']:.2f}",
        ),
        (
            "UNet call, torch, batch 8",
            f"{measured['step_ms_teacher']:.0f} ms",
            f"{measured['step_ms_student']:.0f} ms",
            f"{measured['step_speedup']:.2f} x",
        ),
    ]
    engine = results["export"]["engine"]
    times = results["export"]["step_ms"][engine]
    lines.append(
        (
            f"UNet call, {engine}, batch {results['export']['batch']}",
            f"{times['teacher']:.0f} ms",
            f"{times['student']:.0f} ms",
            f"{times['teacher'] / times['student']:.2f} x",
        )
    )
    out = [columns(lines), "", columns(stage_lines(distilled)), "", columns(gate_lines(promoted)), ""]
    for kind, name in (("plain", "served"), ("lora", f"served + {config.lora}")):
        seconds = results["latency_s"][kind]
        out.append(
            f"image latency, {name}: median {1000 * statistics.median(seconds):.0f} ms, "
            f"worst {1000 * max(seconds):.0f} ms ({config.sampling_steps} steps, {config.size}, {os.cpu_count()} cores)"
        )
    out.append(
        f"elastic order: {distilled['samples']:,} samples, {distilled['repeated']} repeated, "
        f"{distilled['missed']} missed, {distilled['restarts']} restarts, {distilled['redone_steps']} steps redone"
    )
    rejected = results["ingest"]["rejected"] or "none"
    out.append(
        f"pairs: {results['ingest']['rows_kept']:,} kept of {results['ingest']['rows_in']:,}, rejected: {rejected}"
    )
    out.append("wall seconds: " + ", ".join(f"{step.name} {results[step.name]['wall_s']:.0f}" for step in config.steps))
    return "\n".join(out)


def stage_lines(distilled: Mapping[str, Any]) -> list[tuple[str, ...]]:
    head = ("stage", "teacher", "steps", "loss first", "loss last", "parameters", "s/step")
    return [
        head,
        *(
            (
                name,
                stage["teacher"],
                str(stage["steps"]),
                f"{stage['first_loss']:.3f}",
                f"{stage['last_loss']:.3f}",
                f"{stage['student_parameters']:,}",
                f"{stage['step_s']:.2f}",
            )
            for name, stage in distilled["stages"].items()
        ),
    ]


def gate_lines(promoted: Mapping[str, Any]) -> list[tuple[str, ...]]:
    head = ("gate", "measured", "")
    return [
        head,
        *(
            (name, f"{gate['value']:.3f}", "holds" if gate["passes"] else "FAILS")
            for name, gate in promoted["gates"].items()
        ),
    ]


def columns(lines: Sequence[tuple[str, ...]]) -> str:
    """Align the cells of each column: the first to the left, the others to the right."""
    widths = [max(len(cell) for cell in column) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    )
