"""What a report must say of a model beside how good it is: whom it serves worse, and which words leak into what.

Pure functions of what the extractors saw. Nothing here is a verdict; each number stands beside what chance, the scorer
itself or the corpus's own drawings would give.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ssd1b.evaluation import metrics
from ssd1b.evaluation.asks import Ask
from ssd1b.evaluation.attributes import apart, asked, colours, shown
from ssd1b.evaluation.extractor import Extractor, Features, refuse_unlike
from ssd1b.evaluation.metrics import DRAWS, INTERVAL, Estimate
from ssd1b.evaluation.seen import Seen
from ssd1b.recipes.evaluate import Attribute

# N prompts, P probes, D features, E width of the space of pictures and texts, S styles, G categories

FEWEST = 3
"""Prompts that a category needs to stand in a gap."""


@dataclass(frozen=True, kw_only=True)
class Gap:
    """How much better the best category is served than the worst."""

    of: str
    """Whose pictures: "teacher", "student", or "drawing", which shows what the scorer itself prefers."""
    best: str
    worst: str
    gap: Estimate
    """In units of the score; its interval is over prompts within each category."""
    by_chance: float
    """The mean gap where the same scores are dealt to the categories at random: a maximum less a minimum is never 0."""
    p_value: float
    """How often chance deals a gap as large."""


@dataclass(frozen=True, kw_only=True)
class Adherence:
    """How often pictures show what their prompts ask for."""

    what: str
    """ "style", or the name of an attribute."""
    of: str
    """Whose pictures: "teacher", "student", "drawing"."""
    share: Estimate
    by: Mapping[str, Estimate]
    """The same for each value asked for."""
    chance: float
    """The share that the same answers would reach if they were dealt to the prompts at random."""


@dataclass(frozen=True, kw_only=True)
class Leak:
    """What words that should not matter, or matter in one place only, did to pictures of the same prompts and seeds."""

    probe: str
    of: str
    prompts: int
    score: Estimate
    """Change of the cosine with the prompt as it was without the words."""
    distance: Estimate
    """How far the pictures moved, as a share of how far unrelated ones are apart: 0 nothing, 1 another picture."""
    middle: Estimate
    """Change of the mean colour in the middle, in levels of 0 to 1: the object."""
    border: Estimate
    """Change of the colour at the border."""
    pull: Estimate | None
    """How much nearer the middle came to the colour that the words ask of the border; None where they name none."""


def category_gap(of: str, scores_N: Tensor, asks: Sequence[Ask], seed: int = 0) -> Gap | None:
    """Return the gap between categories, each prompt's score taken less the mean of its novelty's.

    Held-out prompts score lower and are spread over the categories unevenly; without that the gap would measure the
    spread. Categories of fewer than three prompts are left out; None where fewer than two are left.
    """
    counted = [ask.category for ask in asks]
    names = sorted(name for name in set(counted) if name and counted.count(name) >= FEWEST)
    kept = [i for i, name in enumerate(counted) if name in names and not scores_N[i].isnan()]
    if len(names) < 2:
        return None
    centred_N = scores_N.clone()
    for novelty in {ask.novelty for ask in asks}:
        where = torch.tensor([ask.novelty == novelty for ask in asks]) & ~scores_N.isnan()
        centred_N[where] -= scores_N[where].mean()
    values_N = centred_N[kept]
    member_GN = torch.tensor([[counted[i] == name for i in kept] for name in names])
    names = [name for name, some in zip(names, member_GN.any(1).tolist(), strict=True) if some]
    member_GN = member_GN[member_GN.any(1)]
    generator = torch.Generator().manual_seed(seed)
    means_G = means(values_N, member_GN)
    drawn = [
        spread(torch.stack([resampled(values_N[row], generator) for row in member_GN])) for _ in range(DRAWS)
    ]  # fmt: skip
    dealt = torch.stack(
        [spread(means(values_N[torch.randperm(len(kept), generator=generator)], member_GN)) for _ in range(DRAWS)]
    )
    low, high = torch.quantile(torch.stack(drawn).double(), torch.tensor(INTERVAL, dtype=torch.float64)).tolist()
    gap = float(spread(means_G))
    return Gap(
        of=of, best=names[int(means_G.argmax())], worst=names[int(means_G.argmin())],
        gap=Estimate(gap, low, high, len(kept)), by_chance=float(dealt.mean()),
        p_value=float((1 + (dealt >= gap).sum()) / (1 + DRAWS)),
    )  # fmt: skip


def means(values_N: Tensor, member_GN: Tensor) -> Tensor:
    """Return the mean value of each group; values may be rows."""
    counts_G = member_GN.sum(1)
    return (member_GN.float() @ values_N) / (counts_G if values_N.ndim == 1 else counts_G[:, None])


def resampled(values_N: Tensor, generator: torch.Generator) -> Tensor:
    return values_N[torch.randint(len(values_N), (len(values_N),), generator=generator)].mean()


def spread(means_G: Tensor) -> Tensor:
    return means_G.max() - means_G.min()


@dataclass(frozen=True, kw_only=True)
class Styles:
    """What the corpus's styles look like: the mean drawing of each, in features taken in deviations from the mean."""

    extractor: Extractor
    names: tuple[str, ...]
    centroids_SD: Tensor
    mean_D: Tensor
    deviation_D: Tensor

    @staticmethod
    def of(features: Features, styles: Sequence[str]) -> "Styles":
        """Return the styles of N drawings."""
        names = tuple(sorted(set(styles)))
        mean_D, deviation_D = features.values_ND.mean(0), features.values_ND.std(0) + 1e-3
        unit_ND = F.normalize((features.values_ND - mean_D) / deviation_D, dim=-1)
        member_SN = torch.tensor([[style == name for style in styles] for name in names])
        centroids_SD = F.normalize(means(unit_ND, member_SN), dim=-1)
        return Styles(
            extractor=features.extractor, names=names, centroids_SD=centroids_SD, mean_D=mean_D,
            deviation_D=deviation_D,
        )  # fmt: skip

    def nearest(self, features: Features) -> list[str]:
        """Return the style whose centroid is nearest to each picture, by the cosine.

        Raises:
            ValueError: features of another extractor than the drawings'.
        """
        refuse_unlike(self.extractor, features.extractor)
        unit_ND = F.normalize((features.values_ND - self.mean_D) / self.deviation_D, dim=-1)
        return [self.names[i] for i in (unit_ND @ self.centroids_SD.T).argmax(1).tolist()]


def adherence(what: str, of: str, wanted: Sequence[str], found: Sequence[str]) -> Adherence:
    """Return how often what was found is what was wanted, over N prompts."""
    hits_N = torch.tensor([a == b for a, b in zip(wanted, found, strict=True)]).float()
    by = {name: metrics.mean(hits_N[torch.tensor([each == name for each in wanted])]) for name in dict.fromkeys(wanted)}
    chance = sum(wanted.count(name) * found.count(name) for name in by) / len(wanted) ** 2
    return Adherence(what=what, of=of, share=metrics.mean(hits_N), by=by, chance=chance)


def attribute_adherence(of: str, seen: Seen, asks: Sequence[Ask], attribute: Attribute) -> Adherence:
    """Return how often the border shows the colour that the prompt asks for, probes included."""
    wanted = [asked(ask.prompt, attribute) for ask in asks]
    return adherence(attribute.name, of, wanted, shown(seen.border_N3, attribute))


def leaks(of: str, seen: Seen, texts_NE: Tensor, asks: Sequence[Ask], attribute: Attribute) -> list[Leak]:
    """Return what each probe's words changed; texts_NE are the main prompts'."""
    found = []
    for name in dict.fromkeys(ask.probe for ask in asks if ask.probe):
        pairs = [(i, ask.plain) for i, ask in enumerate(asks) if ask.probe == name and ask.plain is not None]
        with_P, plain_P = (torch.tensor(side) for side in zip(*pairs, strict=True))
        features_ND, unit_NE = seen.compared.values_ND, seen.embedded.values_ND
        moved_P = metrics.feature_distance(features_ND[with_P], features_ND[plain_P])
        unrelated_P = metrics.unrelated(metrics.feature_distance, features_ND[plain_P], features_ND[plain_P])
        cosines = [(unit_NE[side] * texts_NE[plain_P]).sum(-1) for side in (with_P, plain_P)]
        value = asked(asks[int(with_P[0])].prompt, attribute)
        says = value != asked(asks[int(plain_P[0])].prompt, attribute)
        middles = [seen.middle_N3[side] for side in (with_P, plain_P)]
        target_3 = colours(attribute)[list(attribute.values).index(value)]
        pull_P = apart(middles[1], target_3) - apart(middles[0], target_3)
        found.append(
            Leak(
                probe=name, of=of, prompts=len(pairs), score=metrics.mean(cosines[0] - cosines[1]),
                distance=metrics.ratio(moved_P, unrelated_P), middle=metrics.mean(apart(*middles)),
                border=metrics.mean(apart(seen.border_N3[with_P], seen.border_N3[plain_P])),
                pull=metrics.mean(pull_P) if says else None,
            )
        )  # fmt: skip
    return found
