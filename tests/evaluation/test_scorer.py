"""The offline image-text score: the packages' networks, the head's training, the shipped head."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from ssd1b.evaluation import efficientnet
from ssd1b.evaluation.asks import asks_of, picture_of
from ssd1b.evaluation.fit import Examples, ScorerTraining, measure, softened, train
from ssd1b.evaluation.scorer import CARD, FEATURES, HEAD, LANGUAGE, Scorer
from ssd1b.recipes.evaluate import RECIPES

CONFIG = dataclasses.replace(RECIPES["nano"](), prompts=12, combinations=0, scenes=0, probes=())


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    return Scorer.load()


def synthetic(concepts: int, seed: int) -> Examples:
    """Examples whose picture and text features are two fixed linear views of one hidden vector each, and noise."""
    maps = torch.Generator().manual_seed(0)
    to_picture, to_text = torch.randn(16, FEATURES, generator=maps), torch.randn(16, LANGUAGE, generator=maps)
    generator = torch.Generator().manual_seed(seed)
    hidden_NH = torch.randn(concepts, 16, generator=generator)

    def noisy(clean: torch.Tensor) -> torch.Tensor:
        return clean + 0.3 * torch.randn(clean.shape, generator=generator)

    return Examples(
        images_VND=torch.stack([noisy(hidden_NH @ to_picture) for _ in range(2)]),
        texts_NKL=torch.stack([noisy(hidden_NH @ to_text) for _ in range(4)], dim=1),
        concepts=[str(i) for i in range(concepts)],
        styles=["flat"] * concepts,
    )


def test_training_the_head_finds_what_pictures_and_texts_share() -> None:
    config = ScorerTraining(epochs=6, batch=32)
    heldout = synthetic(50, seed=2)
    untrained = measure(train(synthetic(64, seed=1), ScorerTraining(epochs=1, batch=64, lr=1e-9)), heldout)
    trained = measure(train(synthetic(400, seed=1), config), heldout)
    assert untrained["r_at_1"] < 0.1
    assert trained["r_at_1"] > 0.5
    assert trained["r_at_5"] >= trained["r_at_1"]
    assert trained["cosine_matched"] > 0.3


def test_training_repeats_to_the_bit() -> None:
    config = ScorerTraining(epochs=1, batch=32)
    first, second = (train(synthetic(64, seed=1), config).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_softening_keeps_the_shape_and_mirrors() -> None:
    picture = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    picture[..., :4] = 255
    soft = softened(picture, 0.5)
    assert (soft.shape, soft.dtype) == (picture.shape, torch.uint8)
    assert soft[..., 6:].float().mean() > 200 > 50 > soft[..., :2].float().mean()


def test_features_of_any_size_and_independent_of_neighbours(scorer: Scorer) -> None:
    pictures = torch.randint(0, 256, (3, 65, 47, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    together, alone = scorer.features(pictures), scorer.features(pictures[1:2])
    assert together.shape == (3, FEATURES)
    assert torch.allclose(together[1:2], alone, atol=1e-3)


def test_same_padding_is_tensorflows() -> None:
    """An even side at stride 2 pads one pixel, at the end."""
    conv = efficientnet.SameConv(1, 1, 3, 2)
    with torch.no_grad():
        conv.weight.fill_(0.0)
        conv.weight[..., 0, 0] = 1.0
    x = torch.arange(16.0).view(1, 1, 4, 4)
    assert conv(x).flatten().tolist() == [0.0, 2.0, 8.0, 10.0]


@pytest.mark.parametrize("novelty", ["held-out object", "trained"])
def test_a_drawing_scores_higher_for_its_own_caption(scorer: Scorer, novelty: str) -> None:
    asks = [ask for ask in asks_of(CONFIG) if ask.novelty == novelty]
    pictures = torch.stack([picture_of(ask.drawing) for ask in asks if ask.drawing is not None])
    cosine_NN = scorer.cosines(pictures, [ask.prompt for ask in asks])
    own = cosine_NN.diagonal().mean()
    others = (cosine_NN.sum() - cosine_NN.diagonal().sum()) / (12 * 11)
    assert own > others + 0.1


def test_the_shipped_head_is_small_and_its_card_honest() -> None:
    assert HEAD.stat().st_size <= 1.5e6
    measured = json.loads(CARD.read_text())["heldout_concepts"]
    assert measured["r_at_5"] > 10 * 5 / measured["texts"], "not even ten times chance"
    assert measured["cosine_matched"] > measured["cosine_mismatched"]


def test_a_file_that_is_no_head_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"python -m ssd1b\.evaluation\.fit"):
        Scorer.load(tmp_path / "head.safetensors")


def test_a_missing_package_says_what_to_install() -> None:
    with pytest.raises(ValueError, match=r"no_such_package is not installed: pip install"):
        efficientnet.package_folder("no_such_package")
