"""What an evaluation comes to: one line, the key numbers, and the gates of the recipe that would promote the model."""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass

from ssd1b.evaluation.gates import Gate, decide, refuse_unlike_conditions
from ssd1b.recipes.promote import RECIPES, Promote
from ssd1b.report import words
from ssd1b.report.document import Document, Number


@dataclass(frozen=True, kw_only=True)
class Gates:
    """What jobs.promote would decide."""

    recipe: str
    """Name of the promotion recipe; empty where the model has none."""
    gates: tuple[Gate, ...] = ()
    refusal: str = ""
    """Why nothing can be decided, where that is so."""

    @property
    def failed(self) -> list[Gate]:
        """The gates that do not hold."""
        return [gate for gate in self.gates if not gate.passes]


@dataclass(frozen=True, kw_only=True)
class Card:
    """One key number."""

    name: str
    value: str
    interval: str
    says: str
    """What it means, with whatever it stands beside."""


def gates_of(document: Document) -> Gates:
    """Return the gates of the recipe that promotes the model; why there are none is a part of the answer."""
    found = recipe_of(document.name)
    if found is None:
        return Gates(recipe="")
    name, promote = found
    try:
        refuse_unlike_conditions(document.conditions, promote.scorer)
        return Gates(recipe=name, gates=tuple(decide(document.numbers, promote.thresholds)))
    except ValueError as error:
        return Gates(recipe=name, refusal=str(error))


def recipe_of(model: str) -> tuple[str, Promote] | None:
    """Return the promotion recipe of a registered model with its name; None where there is none."""
    for name, recipe in RECIPES.items():
        if (promote := recipe()).name == model:
            return name, promote
    return None


def by(gate: Gate) -> str:
    """Say by how much a gate holds or fails."""
    if math.isnan(gate.value):
        return words.NOT_MEASURED
    return f"{'holds' if gate.passes else 'fails'} by {words.number(abs(gate.value - gate.threshold))}"


def line(document: Document, gates: Gates) -> str:
    """Return the verdict in one line: score kept with its interval, size, speed, gates."""
    teacher = document.teacher or "its teacher"
    kept = document.number("score_kept")
    if kept is None or kept.value is None:
        said = f"How much it keeps of the image-text score of {teacher} could not be measured"
    else:
        beside = words.interval(kept, "percent") or "95 %: unbounded"
        prompts = document.numbers.get("prompts")
        over = f" over {words.number(prompts)} prompts" if prompts is not None else ""
        said = f"Keeps {words.percent(kept.value)} of the image-text score of {teacher} ({beside}{over})"
    parameters, speed = (document.numbers.get(name) for name in ("parameters_ratio", "step_speedup"))
    said += f", with {words.percent(parameters)} of its parameters" if parameters is not None else ""
    said += f", at {words.number(speed)} times its speed a step" if speed is not None else ""
    return f"{said}. {ruled(gates)}".strip()


def ruled(gates: Gates) -> str:
    """Say whether the model may serve; nothing where no recipe says what it must hold."""
    if gates.refusal:
        return "The gates could not be decided."
    if not gates.gates:
        return ""
    if not gates.failed:
        return f"All {len(gates.gates)} gates hold."
    names = words.listed([gate.name for gate in gates.failed])
    return f"{len(gates.failed)} of {len(gates.gates)} gates fail{'s' * (len(gates.failed) == 1)}: {names}."


def cards(document: Document) -> list[Card]:
    """Return the key numbers; one that the evaluation does not speak of is told as not measured."""

    def of(name: str) -> Number:
        return document.number(name) or Number(value=None)

    def card(title: str, name: str, how: str, says: str) -> Card:
        found = of(name)
        none = "" if found.value is None or f"{name}_low" not in document.numbers else "no bounded interval"
        return Card(name=title, value=words.HOW[how](found.value), interval=words.interval(found, how) or none,
                    says=says)  # fmt: skip

    def two(name: str, shown: Callable[[float | None], str]) -> str:
        return f"{shown(of(f'{name}_student').value)}, teacher {shown(of(f'{name}_teacher').value)}"

    distribution = [
        Card(name=f"{each.name} to real pictures", value=words.number(each.value),
             interval=words.interval(Number(**{end: asdict(each)[end] for end in ("value", "low", "high")})),
             says=f"teacher {words.number(beside.value)}; nearer is better")
        for each, beside in zip(document.distances.get("student", ()), document.distances.get("teacher", ()),
                                strict=True)
    ]  # fmt: skip
    prompts = words.number(of("prompts").value)
    held, seen = (words.number(of(f"{half}_prompts").value) for half in ("heldout", "train"))
    return [
        card("Score kept", "score_kept", "percent", f"of the teacher's score above chance, {prompts} prompts"),
        card("Kept where held out", "heldout_score_kept", "percent", f"{held} prompts that hold something out"),
        card("Kept where trained", "train_score_kept", "percent", f"{seen} prompts of trained objects"),
        card("Distance", "distance_ratio", "percent", "between the two models' pictures; unrelated ones are 100 %"),
        card("Variety", "variety_ratio", "percent", "of the teacher's spread between unlike prompts"),
        card("Parameters", "parameters_ratio", "percent", f"UNet {two('parameters', words.millions)}"),
        card("Speed of a step", "step_speedup", "number", f"times the teacher's; {two('step_ms', words.milliseconds)}"),
        *distribution,
    ]
