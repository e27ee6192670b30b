"""What models are asked to draw: of the corpus's own columns, the same everywhere, nothing held out called trained."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ssd1b.corpus.backdrops import BACKDROPS
from ssd1b.evaluation.asks import Ask, asks_of, corpus, digest, held_out_combinations, held_out_objects
from ssd1b.evaluation.attributes import asked, border, shown
from ssd1b.recipes.evaluate import BLUE, PLEASE, RECIPES

CONFIG = RECIPES["nano"]()
ROWS = st.lists(
    st.tuples(
        st.sampled_from("abcd"), st.sampled_from(["flat", "soft", "line"]), st.sampled_from(["train", "heldout"])
    ),
    unique_by=lambda row: row[:2],
)


def backdrop_of(ask: Ask) -> str:
    return asked(ask.prompt, CONFIG.attribute)


def row(concept: str, style: str, split: str) -> dict[str, Any]:
    return {
        "key": f"{style}/{concept}", "concept": concept, "label": concept, "style": style, "split": split,
        "captions": [f"{concept}, {style} style"], "image": b"", "subgroup": "letter",
    }  # fmt: skip


def test_prompts_are_of_the_styles_and_the_concepts_asked_for() -> None:
    asks = asks_of(CONFIG)
    main = [ask for ask in asks if not ask.probe]
    by = {
        novelty: [ask for ask in main if ask.novelty == novelty] for novelty in dict.fromkeys(a.novelty for a in main)
    }
    assert {novelty: len(found) for novelty, found in by.items()} == {
        "held-out object": CONFIG.prompts, "held-out combination": CONFIG.scenes + CONFIG.combinations,
        "trained": CONFIG.scenes + CONFIG.prompts,
    }  # fmt: skip
    assert {ask.style for ask in main} <= set(CONFIG.styles)
    assert {ask.category for ask in main} <= set(CONFIG.subgroups)
    trained = {(r["concept"], r["style"]) for r in corpus(CONFIG) if r["split"] == "train"}
    assert not {ask.concept for ask in by["held-out object"]} & {concept for concept, _ in trained}
    scenes = {(ask.style, backdrop) for ask in by["held-out combination"] if (backdrop := backdrop_of(ask)) != "white"}
    assert scenes
    assert scenes <= set(CONFIG.held_out)
    assert not {(ask.style, backdrop_of(ask)) for ask in by["trained"]} & set(CONFIG.held_out)
    plain = {(ask.concept, ask.style) for ask in by["held-out combination"] if backdrop_of(ask) == "white"}
    assert not plain & trained
    assert {(ask.concept, ask.style) for ask in by["trained"]} <= trained
    assert [ask.seed for ask in main] == list(range(len(main)))
    assert digest(asks) == digest(asks_of(CONFIG)), "the choice must not change between calls"


@given(ROWS)
def test_no_row_is_both_trained_and_held_out(drawn: list[tuple[str, str, str]]) -> None:
    rows = [row(*each) for each in drawn]
    trained = {(r["concept"], r["style"]) for r in rows if r["split"] == "train"}
    objects = {r["concept"] for r in held_out_objects(rows)}
    combined = {(r["concept"], r["style"]) for r in held_out_combinations(rows)}
    concepts, styles = {c for c, _ in trained}, {s for _, s in trained}
    assert not objects & concepts
    assert combined == {(c, s) for c in concepts for s in styles} - trained


def test_a_held_out_combination_that_somebody_drew_keeps_its_drawing() -> None:
    rows = [row("a", "flat", "train"), row("b", "soft", "train"), row("a", "soft", "heldout")]
    found = {(r["concept"], r["style"]): r["image"] for r in held_out_combinations(rows)}
    assert found == {("a", "soft"): b"", ("b", "flat"): None}


def test_a_probe_is_the_same_prompt_and_seed_with_words_behind_it() -> None:
    asks = asks_of(dataclasses.replace(CONFIG, probe_prompts=2))
    probes = [ask for ask in asks if ask.probe]
    assert [ask.probe for ask in probes] == [PLEASE.name] * 2 + [BLUE.name] * 2
    for ask in probes:
        assert ask.plain is not None
        plain = asks[ask.plain]
        assert plain.novelty == "trained"
        assert ask.seed == plain.seed
        assert ask.prompt.startswith(plain.prompt + ", ")


def test_more_prompts_than_the_corpus_has_are_refused() -> None:
    with pytest.raises(ValueError, match=r"the corpus has \d+ prompts of held-out objects .*, not 1000"):
        asks_of(dataclasses.replace(CONFIG, prompts=1000))


def test_captions_of_a_file_are_drawn_with_one_seed_as_the_protocol_wants(tmp_path: Path) -> None:
    path = tmp_path / "captions.tsv"
    path.write_text('id\tcaption\n1\tA city at night.\n2\tA "large" clock, displaying the time.\n', encoding="utf-8")
    config = dataclasses.replace(RECIPES["mlperf_sdxl"](), captions=str(path), captions_used=2)
    asks = asks_of(config)
    assert [ask.prompt for ask in asks] == ["A city at night.", 'A "large" clock, displaying the time.']
    assert {ask.seed for ask in asks} == {0}
    assert {ask.novelty for ask in asks} == {"held-out caption"}
    with pytest.raises(ValueError, match="has 2 captions, not 5000"):
        asks_of(dataclasses.replace(config, captions_used=5000))
    path.write_text("one\ttwo\n")
    with pytest.raises(ValueError, match="has no column caption"):
        asks_of(config)


def test_the_mlperf_recipe_holds_its_published_numbers() -> None:
    """mlcommons/inference at b66003e1, text_to_image/backend_pytorch.py and submission_checker/constants.py."""
    config = RECIPES["mlperf_sdxl"]()
    assert (config.sampler, config.steps, config.guidance, config.side, config.captions_used) == (
        "euler", 20, 8.0, 1024, 5000,
    )  # fmt: skip
    assert {window.name: (window.low, window.high) for window in config.windows} == {
        "clip_score_teacher": (31.68631873, 31.81331801), "fid_teacher": (23.01085758, 23.95007626),
    }  # fmt: skip


def test_every_backdrop_is_told_from_its_phrase_and_from_its_border() -> None:
    for name, backdrop in BACKDROPS.items():
        assert asked(f"a red apple, flat vector style, {backdrop.phrase}", CONFIG.attribute) == name
        ground = torch.from_numpy(backdrop.paint(128))[None]
        assert shown(border(ground), CONFIG.attribute) == [name]
    assert asked("a red apple, flat vector style", CONFIG.attribute) == "white"
