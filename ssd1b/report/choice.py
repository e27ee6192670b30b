"""Which prompts a page shows: all as numbers, worst first, and so many with pictures that it stays a page."""

from collections.abc import Sequence
from dataclasses import dataclass

from ssd1b.report.document import Prompt

LOWEST, FURTHEST, BEST, REST = 16, 8, 8, 40
"""With pictures: those that lost most score, those whose pictures are furthest apart, those that gained most, and an
even sample of what is left."""
SHEET = 18
"""Rows of the contact sheet."""
PER_PROBE = 3
"""Pairs of pictures that a probe is shown with."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Numbers of prompts in the document."""

    ordered: tuple[int, ...]
    """All without probes, worst first: lowest student score less the teacher's, then biggest distance."""
    pictured: frozenset[int]
    """Those of them that the listing has pictures of."""
    sheet: tuple[int, ...]
    """Evenly over the document, in its order."""
    probes: tuple[tuple[int, int], ...]
    """Probes with pictures, each with the prompt that it is put behind."""

    @property
    def pictures_of(self) -> list[int]:
        """Every prompt whose pictures the page needs."""
        return sorted({*self.pictured, *self.sheet, *(i for pair in self.probes for i in pair)})

    @property
    def unseen(self) -> int:
        """How many prompts the page has no pictures of."""
        return len(set(self.ordered) - self.pictured - set(self.sheet))


def badness(prompt: Prompt) -> tuple[bool, float, float]:
    """Return what sorts the worst to the front; prompts that were not scored come last."""
    gained = prompt.gained
    return gained is None, 0.0 if gained is None else gained, -(prompt.distance or 0.0)


def evenly(of: Sequence[int], count: int) -> list[int]:
    """Return that many, evenly spaced from the first on; all where there are no more."""
    return list(of) if len(of) <= count else [of[i * len(of) // count] for i in range(count)]


def choose(prompts: Sequence[Prompt]) -> Choice:
    """Return what of an evaluation is shown."""
    main = [i for i, prompt in enumerate(prompts) if not prompt.probe]
    ordered = sorted(main, key=lambda i: badness(prompts[i]))
    lowest = ordered[:LOWEST]
    apart = sorted(set(main) - set(lowest), key=lambda i: (-(prompts[i].distance or 0.0), i))
    worst = [*lowest, *apart[:FURTHEST]]
    best = [i for i in ordered if i not in worst][-BEST:]
    rest = evenly([i for i in main if i not in {*worst, *best}], REST)
    pairs = [(i, prompt.plain, prompt.probe) for i, prompt in enumerate(prompts) if prompt.probe]
    known = [(i, plain, name) for i, plain, name in pairs if plain is not None and plain < len(prompts)]
    probes = [
        pair for name in dict.fromkeys(name for _, _, name in known)
        for pair in [(i, plain) for i, plain, of in known if of == name][:PER_PROBE]
    ]  # fmt: skip
    return Choice(
        ordered=tuple(ordered), pictured=frozenset([*worst, *best, *rest]), sheet=tuple(evenly(main, SHEET)),
        probes=tuple(probes),
    )  # fmt: skip
