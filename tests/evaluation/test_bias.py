"""Gaps, styles, attributes and leaks: what they say of made-up pictures whose faults are known."""

import pytest
import torch
from torch import Tensor

from ssd1b.evaluation import attributes
from ssd1b.evaluation.asks import Ask
from ssd1b.evaluation.bias import Styles, adherence, attribute_adherence, category_gap, leaks
from ssd1b.evaluation.extractor import Extractor, Features
from ssd1b.evaluation.seen import Seen
from ssd1b.recipes.evaluate import Attribute

GROUND = Attribute()
WHO = Extractor(name="toy", kind="pictures", source="here", dimension=3, sha256="0" * 64, licence="MIT")


def plain(colour: tuple[int, int, int], disc: tuple[int, int, int] = (200, 30, 30), side: int = 64) -> Tensor:
    """A disc on a ground, uint8 (side, side, 3)."""
    picture = torch.tensor(colour, dtype=torch.uint8).expand(side, side, 3).clone()
    across = torch.arange(side) - side / 2
    picture[(across[:, None] ** 2 + across[None] ** 2) < (side / 3) ** 2] = torch.tensor(disc, dtype=torch.uint8)
    return picture


def asks(categories: list[str], novelty: str = "trained") -> list[Ask]:
    return [Ask(prompt=f"a {i}", seed=i, novelty=novelty, category=name) for i, name in enumerate(categories)]  # type: ignore[arg-type]


def test_what_a_prompt_asks_for_is_read_from_its_words() -> None:
    assert attributes.asked("a red apple, flat vector style, on a blue background", GROUND) == "blue"
    assert attributes.asked("a red apple, on an orange background", GROUND) == "orange"
    assert attributes.asked("a red apple, flat vector style", GROUND) == "white"
    assert attributes.asked("an apple on a plaid background", GROUND) == "white", "a colour that the corpus has not"


@pytest.mark.parametrize("name", GROUND.values)
def test_the_border_shows_the_ground_also_where_the_object_reaches_into_it(name: str) -> None:
    colour = GROUND.values[name]
    rgb = tuple(int(colour[i : i + 2], 16) for i in (1, 3, 5))
    picture = plain(rgb)  # type: ignore[arg-type]
    picture[20:40, :6] = torch.tensor((200, 30, 30), dtype=torch.uint8)
    border_N3 = attributes.border(picture[None])
    assert attributes.shown(border_N3, GROUND) == [name]
    assert (border_N3[0] * 255).round().tolist() == list(rgb)


def test_a_gap_is_found_and_an_equal_service_is_not_called_one() -> None:
    generator = torch.Generator().manual_seed(0)
    names = ["fruit"] * 20 + ["mammal"] * 20 + ["sweet"] * 20
    noise_N = 0.1 * torch.randn(60, generator=generator)
    served = torch.tensor([0.2] * 40 + [0.5] * 20) + noise_N
    found = category_gap("student", served, asks(names))
    assert found is not None
    assert (found.best, found.p_value < 0.01) == ("sweet", True)
    assert found.gap.low < found.gap.value < found.gap.high + 0.05
    assert found.gap.value > 3 * found.by_chance
    equal = category_gap("student", noise_N, asks(names))
    assert equal is not None
    assert equal.p_value > 0.05


def test_what_is_new_about_prompts_makes_no_gap() -> None:
    """All held-out prompts are mammals and score lower: that is novelty, not the category."""
    everyone = asks(["fruit"] * 10 + ["mammal"] * 10) + asks(["mammal"] * 10, "held-out object")
    scores_N = torch.tensor([0.5] * 20 + [0.1] * 10) + 0.01 * torch.randn(
        30, generator=torch.Generator().manual_seed(0)
    )
    found = category_gap("student", scores_N, everyone)
    assert found is not None
    assert found.gap.value < 0.02


def test_too_few_prompts_make_no_gap() -> None:
    assert category_gap("student", torch.rand(4), asks(["fruit", "fruit", "mammal", "mammal"])) is None


def test_the_nearest_style_is_that_of_the_drawings() -> None:
    generator = torch.Generator().manual_seed(0)
    middles = {"flat": torch.tensor([3.0, 0, 0]), "soft": torch.tensor([0, 3.0, 0]), "line": torch.tensor([0, 0, 3.0])}
    names = [name for name in middles for _ in range(30)]
    values = torch.stack([middles[name] + torch.randn(3, generator=generator) / 2 for name in names])
    styles = Styles.of(Features(extractor=WHO, values_ND=values), names)
    found = adherence("style", "student", names, styles.nearest(Features(extractor=WHO, values_ND=values)))
    assert found.share.value > 0.95
    assert found.chance == pytest.approx(1 / 3, abs=0.02)
    assert {name: estimate.count for name, estimate in found.by.items()} == {"flat": 30, "soft": 30, "line": 30}


def seen(pictures_NHWC: Tensor) -> Seen:
    """What extractors of three colours see."""
    values = pictures_NHWC.float().mean((1, 2)) / 255
    unit = Features(extractor=WHO, values_ND=torch.nn.functional.normalize(values, dim=-1))
    return Seen(
        embedded=unit, compared=unit, spread=unit, tastes={}, small_NHWC=pictures_NHWC,
        border_N3=attributes.border(pictures_NHWC), middle_N3=attributes.middle(pictures_NHWC),
    )  # fmt: skip


WHITE, BLUE, RED, GREEN = (255, 255, 255), (30, 91, 255), (200, 30, 30), (30, 160, 30)


def probed(with_words: list[Tensor], words: str) -> tuple[Seen, list[Ask]]:
    """Two plain pictures, a red and a green disc on white, and the same with words."""
    everyone = [
        *(Ask(prompt=f"a disc {i}", seed=i, novelty="trained") for i in range(2)),
        *(Ask(prompt=f"a disc {i}{words}", seed=i, novelty="trained", probe="words", plain=i) for i in range(2)),
    ]
    return seen(torch.stack([plain(WHITE), plain(WHITE, GREEN), *with_words])), everyone


def test_words_that_change_nothing_leak_nothing() -> None:
    found, everyone = probed([plain(WHITE), plain(WHITE, GREEN)], ", please")
    (leak,) = leaks("student", found, found.embedded.values_ND[:2], everyone, GROUND)
    for value in (leak.score, leak.distance, leak.middle, leak.border):
        assert value.value == pytest.approx(0, abs=1e-5)
    assert leak.pull is None
    assert leak.prompts == 2


def test_a_background_that_stays_behind_the_object_is_kept_apart_from_one_that_tints_it() -> None:
    words = ", on a blue background"
    clean, everyone = probed([plain(BLUE), plain(BLUE, GREEN)], words)
    tinted, _ = probed([plain(BLUE, (90, 40, 180)), plain(BLUE, (30, 120, 180))], words)
    texts = clean.embedded.values_ND[:2]
    (kept,), (leaked,) = (leaks("student", each, texts, everyone, GROUND) for each in (clean, tinted))
    assert kept.border.value > 0.4
    assert leaked.middle.value > 5 * kept.middle.value
    assert leaked.pull is not None
    assert kept.pull is not None
    assert leaked.pull.value > 0.1 > abs(kept.pull.value)
    shown = attribute_adherence("student", clean, everyone, GROUND)
    assert shown.share.value == 1
    assert set(shown.by) == {"white", "blue"}
