"""What a request wears: its adapters in one form, so that equal choices share a slot of the bank and a route."""

from collections.abc import Sequence
from dataclasses import dataclass

from serve.request import LoraChoice


@dataclass(frozen=True)
class Wearing:
    """Adapters with their weights. One alone is weighed row by row, so that its slot serves every weight."""

    parts: tuple[tuple[str, float], ...]
    """Name and weight, by name. The weight of one alone is 1: it is the `scale`."""
    scale: float = 1.0

    @property
    def label(self) -> str:
        """What the router and the status page call it: "ink", or "chalk*0.5+ink*1.0" for several."""
        return self.label_of({name: name for name, _ in self.parts})

    def label_of(self, names: dict[str, str]) -> str:
        """Return the label with other names for the adapters: with their keys it tells versions apart."""
        if len(self.parts) == 1:
            return names[self.parts[0][0]]
        return "+".join(f"{names[name]}*{weight}" for name, weight in self.parts)


def wearing(loras: Sequence[LoraChoice]) -> Wearing:
    """Return what a request's choices come to; the weights of an adapter named twice add up, a weight of 0 is none."""
    weights: dict[str, float] = {}
    for choice in loras:
        weights[choice.name] = weights.get(choice.name, 0.0) + float(choice.scale)
    parts = tuple(sorted((name, weight) for name, weight in weights.items() if weight))
    if len(parts) == 1:
        return Wearing(((parts[0][0], 1.0),), parts[0][1])
    return Wearing(parts)
