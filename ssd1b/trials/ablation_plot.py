"""The picture of an ablation: held-out error over steps, a line a run."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator


@dataclass(frozen=True)
class Curve:
    """One run's held-out error by step."""

    name: str
    seed: int
    points: dict[int, float]


def plot(curves: Sequence[Curve], path: Path) -> None:
    """Draw the curves, all seeds of a name in one colour, errors on a logarithmic scale."""
    figure = Figure(figsize=(7.5, 4.5), dpi=150)
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    names = list(dict.fromkeys(curve.name for curve in curves))
    for curve in curves:
        colour = f"C{names.index(curve.name)}"
        first = next(one for one in curves if one.name == curve.name) is curve
        axes.plot(
            list(curve.points), list(curve.points.values()), marker="o", markersize=3, color=colour, alpha=0.85,
            label=curve.name if first else None,
        )  # fmt: skip
    axes.set_yscale("log")
    axes.set_xlabel("optimizer steps")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylabel("error against the teacher, held-out pictures")
    axes.grid(visible=True, which="both", alpha=0.25)
    axes.legend(frameon=False)
    figure.tight_layout()
    figure.savefig(path)
