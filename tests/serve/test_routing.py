"""Which replica draws: the choice by itself, and on a real Serve with two replicas and three adapters."""

import time
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ray.serve.config import RequestRouterConfig
from serve_toy import deployed

from serve.request import GenerationRequest, LoraChoice
from serve.routing import MISS_S, Seen, label_of, ranked

names = st.sampled_from("abcdef")
replicas = st.lists(
    st.builds(
        Seen,
        name=names,
        resident=st.frozensets(st.sampled_from(("ink", "chalk")), max_size=2),
        work=st.floats(0, 1000),
        rate=st.sampled_from((0.0, 10.0, 20.0)),
    ),
    min_size=1,
    max_size=6,
    unique_by=lambda replica: replica.name,
)


@given(st.sampled_from(("", "ink", "clay")), replicas)
def test_everybody_is_ranked_and_nobody_is_passed_over_for_more_work_and_no_adapter(
    label: str, seen: list[Seen]
) -> None:
    order = ranked(label, "salt", seen)
    assert sorted(order) == sorted(replica.name for replica in seen)
    by_name = {replica.name: replica for replica in seen}
    known = [replica.rate for replica in seen if replica.rate]
    usual = sum(known) / len(known) if known else 1.0
    best = by_name[order[0]]
    for other in seen:
        better = other.work / (other.rate or usual) < best.work / (best.rate or usual) - 0.11
        assert not (better and (label in other.resident or not label))
    assert ranked(label, "salt", seen[::-1]) == order


def test_a_request_sticks_to_its_adapter_until_another_replica_is_so_much_sooner() -> None:
    def best(work: float) -> str:
        holds = Seen(name="holds", resident=frozenset({"ink"}), work=work, rate=10)
        return ranked("ink", "", [holds, Seen(name="free", rate=10)])[0]

    assert best(0) == best(10 * MISS_S - 1) == "holds"
    assert best(10 * MISS_S + 1) == "free"


def test_equal_replicas_share_the_adapters_and_every_front_agrees() -> None:
    idle = [Seen(name=name) for name in "abcd"]
    first = {f"lora-{n}": ranked(f"lora-{n}", "one front", idle)[0] for n in range(400)}
    assert first == {label: ranked(label, "another", idle[::-1])[0] for label in first}
    assert min(Counter(first.values()).values()) > 60
    # a replica that goes takes only its own adapters along
    left = {label: ranked(label, "", idle[:3])[0] for label in first}
    assert all(left[label] == name for label, name in first.items() if name != "d")
    plain = Counter(ranked("", f"request {n}", idle)[0] for n in range(400))
    assert min(plain.values()) > 60


def test_what_a_request_wears() -> None:
    def label(*loras: LoraChoice) -> str:
        return label_of(GenerationRequest(prompt="x", seed=1, loras=loras))

    ink, chalk = LoraChoice(name="ink", scale=0.5), LoraChoice(name="chalk")
    assert (label(), label(ink), label(LoraChoice(name="ink", scale=0))) == ("", "ink", "")
    assert label(ink, chalk) == label(chalk, ink) == "chalk*1.0+ink*0.5"


@pytest.mark.ray
@pytest.mark.timeout(180)
def test_two_replicas_and_three_adapters_on_a_real_serve(ray_cluster: object) -> None:
    """Requests stick to the replica that holds their adapter; one that everybody wants comes to the other, too."""
    assert ray_cluster
    toy = deployed(
        "routing",
        step_s=0.02,
        num_replicas=2,
        request_router_config=RequestRouterConfig(
            request_router_class="serve.routing.AdapterRouter",
            request_router_kwargs={"miss_s": 1.0},
            request_routing_stats_period_s=0.5,
            request_routing_stats_timeout_s=10.0,
        ),
    )
    with toy as handle:

        def draw(name: str, seed: int, steps: int = 4) -> Any:
            loras = (LoraChoice(name=name),) if name else ()
            return handle.generate.remote(GenerationRequest(prompt="x", seed=seed, steps=steps, loras=loras))

        labels = ("ink", "chalk", "clay")
        for name in (*labels, "", "", "", ""):
            draw(name, 1).result(timeout_s=60)
        where = {name: Counter[str]() for name in labels}
        for turn in range(12):
            for name in labels:
                where[name][draw(name, turn).result(timeout_s=60).replica] += 1
        assert [max(found.values()) for found in where.values()] == [12, 12, 12]
        began = time.monotonic()
        flood = [draw("ink", turn, steps=60) for turn in range(40)]
        hot = Counter(answer.result(timeout_s=60).replica for answer in flood)
        assert len(hot) == 2, "a hot adapter spreads"
        assert min(hot.values()) >= 5
        print(f"40 requests for one adapter: {dict(hot)} in {time.monotonic() - began:.1f} s")

        reports = handle.broadcast("report").results(timeout_s=10)
        assert ["ink" in report["resident"] for report in reports] == [True, True]
        offer = handle.offer.remote().result(timeout_s=60)  # what is no request to draw is routed, too
        assert offer.loras == ("chalk", "clay", "ink", "unfit")
