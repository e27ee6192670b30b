"""The autoscaling policy, and on a real Serve: one replica, two under load, one again; from none and back to none."""

import time
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ray.serve.config import AutoscalingConfig, AutoscalingPolicy
from serve_toy import deployed, running, wait_for

from serve.autoscale import Aim, Load, Scale, WorkPolicy, desired
from serve.request import GenerationRequest

AIM = Aim(drain_s=10, batch_drain_s=100, slack=0.3)
loads = st.builds(
    Load,
    work=st.floats(0, 1e5),
    batch_work=st.floats(0, 1e5),
    rate=st.floats(0.1, 1e3),
    waiting=st.floats(0, 100),
    requests=st.floats(0.1, 100),
)


def test_work_over_rate_and_time() -> None:
    assert desired(Load(work=1000, batch_work=0, rate=10), 1, AIM).replicas == 10
    assert desired(Load(work=0, batch_work=1000, rate=10), 1, AIM).replicas == 1
    assert desired(Load(work=1000, batch_work=2000, rate=10), 1, AIM).replicas == 12
    assert desired(Load(work=0, batch_work=0, rate=1, waiting=10, requests=10), 1, AIM).replicas == 20


def test_the_first_and_the_last_replica() -> None:
    nothing = Load(work=0, batch_work=0, rate=10)
    assert desired(nothing, 1, AIM) == Scale(0, "nothing to do")
    assert desired(nothing, 0, AIM).replicas == 0
    assert desired(Load(work=0, batch_work=0, rate=0, requests=1), 0, AIM).replicas == 1
    assert desired(Load(work=0, batch_work=0, rate=10, requests=0.1), 1, AIM).replicas == 1  # its text is being read
    assert desired(Load(work=0, batch_work=0, rate=10, requests=0.01), 1, AIM).replicas == 0  # a page asks for /status
    assert desired(Load(work=9e9, batch_work=0, rate=0), 3, AIM).replicas == 3  # who starts is waited for


def test_what_hovers_about_a_bound_moves_nothing() -> None:
    replicas, seen = 1, list[int]()
    for swing in range(100):
        work = 200 + (25 if swing % 2 else -25)  # two replicas' worth, more or less
        replicas = desired(Load(work=work, batch_work=0, rate=10, requests=1), replicas, AIM).replicas
        seen.append(replicas)
    assert seen == [2] + [3] * 99
    assert desired(Load(work=175, batch_work=0, rate=10, requests=1), 3, AIM).replicas == 3
    assert desired(Load(work=130, batch_work=0, rate=10, requests=1), 3, AIM).replicas == 2


@given(loads, st.integers(0, 50))
def test_never_too_few_and_steady(load: Load, now: int) -> None:
    replicas = desired(load, now, AIM).replicas
    assert replicas >= 1
    drained = (load.work + load.waiting * AIM.request_steps) / AIM.drain_s + load.batch_work / AIM.batch_drain_s
    assert replicas * load.rate >= drained * (1 - 1e-9)
    assert replicas <= max(now, drained / load.rate + 1)
    assert desired(load, replicas, AIM).replicas == replicas  # once there, it stays


@given(loads, st.integers(0, 50), st.floats(1, 10))
def test_more_work_never_means_fewer(load: Load, now: int, factor: float) -> None:
    more = Load(**(vars(load) | {"work": load.work * factor}))
    assert desired(more, now, AIM).replicas >= desired(load, now, AIM).replicas


def test_the_policy_reads_serves_context() -> None:
    def context(**metrics: dict[str, float]) -> Any:
        return SimpleNamespace(
            aggregated_metrics=metrics, total_queued_requests=0.0, total_num_requests=3.0, target_num_replicas=2
        )

    policy = WorkPolicy(drain_s=10)
    assert policy(context()) == (2, {})
    assert policy(context(work={"a": 300.0, "b": 100.0}, batch_work={"a": 0.0}, rate={"a": 10.0, "b": 0.0})) == (4, {})
    assert policy(context(work={"a": 600.0}, rate={"a": 0.0})) == (6, {})  # the rate it had
    with pytest.raises(ValueError, match="slack 1"):
        WorkPolicy(slack=1)


SOON = {
    "RAY_SERVE_REPLICA_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "0.5",
    "RAY_SERVE_HANDLE_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "0.5",
}


@pytest.mark.ray
@pytest.mark.timeout(180)
def test_a_real_serve_grows_under_load_and_shrinks_to_none(
    ray_cluster: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ray_cluster
    for name, value in SOON.items():
        monkeypatch.setenv(name, value)
    toy = deployed(
        "autoscale",
        step_s=0.05,
        env=SOON,
        autoscaling_config=AutoscalingConfig(
            min_replicas=0,
            initial_replicas=1,
            max_replicas=2,
            metrics_interval_s=0.5,
            look_back_period_s=2,
            upscale_delay_s=0.5,
            downscale_delay_s=2,
            downscale_to_zero_delay_s=3,
            policy=AutoscalingPolicy(policy_function="serve.autoscale:WorkPolicy", policy_kwargs={"drain_s": 1.0}),
        ),
    )
    with toy as handle:
        warm = [handle.generate.remote(GenerationRequest(prompt="x", seed=n, steps=20)) for n in range(4)]
        assert [one.result(timeout_s=60).pictures[0].seed for one in warm] == [0, 1, 2, 3]
        load = [handle.generate.remote(GenerationRequest(prompt="x", seed=n, steps=120)) for n in range(16)]
        grown = wait_for(lambda: running("autoscale") == 2, 40)
        assert [one.result(timeout_s=60).pictures[0].seed for one in load] == list(range(16))
        shrunk = wait_for(lambda: running("autoscale") <= 1, 40)
        none = wait_for(lambda: running("autoscale") == 0, 40)
        began = time.monotonic()
        assert handle.generate.remote(GenerationRequest(prompt="x", seed=5)).result(timeout_s=60).pictures[0].seed == 5
        print(f"1 to 2 in {grown:.1f} s, back in {shrunk:.1f} s, to 0 in {none:.1f} s more, "
              f"first picture from 0 in {time.monotonic() - began:.1f} s")  # fmt: skip
