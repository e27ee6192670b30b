"""The clients of the soak test against the endpoint's own routes: what they ask for arrives, what they get is read."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
from toy_front import ToyEngine, listening

from serve.ingress import routes
from ssd1b.recipes.serving import ServeSoak
from ssd1b.trials.load.soak_clients import Clients, RefusedError, local_only
from ssd1b.trials.load.soak_wishes import EDIT, SEGMIND, Wish
from ssd1b.trials.load.trace import Mix, at_once

ASK = replace(at_once(Mix(prompts=("a red apple",), steps=((20, 1.0),)), 1, 3)[0], guidance=3.0)


@pytest.fixture(scope="module")
def engine() -> ToyEngine:
    return ToyEngine()


@pytest.fixture(scope="module")
def clients(engine: ToyEngine) -> Iterator[Clients]:
    with listening(routes(engine, "toy")) as url, local_only():
        yield Clients(url, 30.0, "toy")


@pytest.mark.parametrize("dialect", sorted(set(ServeSoak().callers)))
@pytest.mark.parametrize("sampler", ["euler", "ddim"])
def test_a_wish_arrives_as_it_was_made(clients: Clients, engine: ToyEngine, dialect: str, sampler: str) -> None:
    adapter = None if dialect == SEGMIND else "ink"
    wish = Wish(dialect=dialect, ask=replace(ASK, adapter=adapter), sampler=sampler, negative="blurry", weight=0.5)
    assert clients.draw(wish).size == (128, 128)
    asked = engine.requests[-1]
    assert (asked.prompt, asked.negative_prompt, asked.seed) == ("a red apple", "blurry", ASK.seed)
    assert (asked.steps, asked.guidance, asked.sampler) == (20, 3.0, sampler)
    assert [(one.name, one.scale) for one in asked.loras] == ([] if adapter is None else [("ink", 0.5)])
    assert (asked.start is not None) == (dialect == EDIT)


@pytest.mark.parametrize("dialect", sorted(set(ServeSoak().callers) - {SEGMIND}))
def test_the_refusal_of_an_adapter_is_known_in_every_dialect(clients: Clients, dialect: str) -> None:
    wish = Wish(dialect=dialect, ask=replace(ASK, adapter="gone"), sampler="euler")
    with pytest.raises(RefusedError) as info:
        clients.draw(wish)
    assert info.value.clean
    with pytest.raises(RefusedError) as other:
        clients.draw(replace(wish, sampler="unheard-of", ask=ASK))
    assert not other.value.clean or "sampler" in other.value.message or "scheduler" in other.value.message


def test_no_dialect_of_that_name(clients: Clients) -> None:
    with pytest.raises(ValueError, match="choose from openai"):
        clients.draw(Wish(dialect="morse", ask=ASK, sampler="euler"))
