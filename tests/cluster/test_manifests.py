"""The cluster files hold together: Ray validates its own, the Kubernetes ones agree with the code they start."""

import copy
from pathlib import Path
from typing import Any

import pytest
import ray
import yaml
from jsonschema import ValidationError
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.serve.schema import ServeDeploySchema

ROOT = Path(__file__).parents[2]
KUBERAY = ROOT / "cluster" / "kuberay"


def launcher() -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load((ROOT / "ray_cluster.yaml").read_text())
    return config


def prepared(config: dict[str, Any]) -> dict[str, Any]:
    """The config as `ray up` sees it before it talks to the cloud."""
    whole: dict[str, Any] = prepare_config(copy.deepcopy(config))
    whole["cluster_synced_files"] = whole.get("cluster_synced_files", [])
    return whole


def test_ray_accepts_the_launcher_file() -> None:
    validate_config(prepared(launcher()))


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"max_wokers": 3}, ValidationError),
        ({"head_node_type": "nobody"}, ValueError),
        ({"max_workers": 0}, ValueError),
    ],
)
def test_that_validation_can_fail(change: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        validate_config(prepared({**launcher(), **change}))


def test_the_head_has_no_gpu_and_a100_workers_have_bounds() -> None:
    config = launcher()
    types = config["available_node_types"]
    assert types[config["head_node_type"]]["resources"]["GPU"] == 0
    assert any("--num-gpus=0" in command for command in config["head_start_ray_commands"])
    workers = {name: node for name, node in types.items() if name.startswith("a100")}
    assert workers
    for node in workers.values():
        assert node["resources"]["GPU"] == 8
        assert node["min_workers"] < node["max_workers"]
        assert node["labels"]


def images(node: Any) -> list[str]:
    """Every image named anywhere below."""
    if isinstance(node, dict):
        own = [value for key, value in node.items() if key.endswith("image") and isinstance(value, str)]
        return own + [image for value in node.values() for image in images(value)]
    if isinstance(node, list):
        return [image for value in node for image in images(value)]
    return []


@pytest.mark.parametrize(
    "path", [ROOT / "ray_cluster.yaml", *sorted(KUBERAY.glob("*.yaml"))], ids=lambda path: str(path.name)
)
def test_every_image_is_the_ray_that_is_installed(path: Path) -> None:
    found = images(yaml.safe_load(path.read_text()))
    assert found
    assert all(image.startswith(f"rayproject/ray:{ray.__version__}-py311-") for image in found), found


def cluster_spec(manifest: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = manifest["spec"]
    inner = {"RayCluster": None, "RayService": "rayClusterConfig", "RayJob": "rayClusterSpec"}[manifest["kind"]]
    return spec[inner] if inner else spec  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", ["raycluster", "rayservice", "rayjob"])
def test_a_kubernetes_manifest_has_its_parts(name: str) -> None:
    manifest = yaml.safe_load((KUBERAY / f"{name}.yaml").read_text())
    assert manifest["apiVersion"] == "ray.io/v1"
    assert manifest["kind"].lower() == name
    spec = cluster_spec(manifest)
    assert spec["rayVersion"] == ray.__version__
    assert spec["enableInTreeAutoscaling"]
    assert spec["authOptions"]["mode"] == "token"
    assert spec["headGroupSpec"]["rayStartParams"]["num-gpus"] == "0"
    groups = {group["groupName"]: group for group in spec["workerGroupSpecs"]}
    assert groups["a100"]["minReplicas"] < groups["a100"]["maxReplicas"]
    assert groups["a100"]["labels"]["ray.io/accelerator-type"] == "A100"
    for group in [spec["headGroupSpec"], *groups.values()]:
        pod = group["template"]["spec"]
        mounts = {mount["name"] for container in pod["containers"] for mount in container["volumeMounts"]}
        assert mounts == {volume["name"] for volume in pod["volumes"]}
        gpus = pod["containers"][0]["resources"]["limits"].get("nvidia.com/gpu")
        assert (gpus is not None) == (group.get("groupName") == "a100")


def test_the_service_starts_this_application_with_arguments_it_knows() -> None:
    from serve.app import build
    from serve.settings import Settings

    config = yaml.safe_load(yaml.safe_load((KUBERAY / "rayservice.yaml").read_text())["spec"]["serveConfigV2"])
    (application,) = ServeDeploySchema.model_validate(config).applications
    assert application.import_path == f"{build.__module__}:{build.__name__}"
    assert Settings.model_validate(application.args).engine_gpus == 1


def test_the_head_is_patient_with_a_proxy_that_starts_and_not_with_a_dead_one() -> None:
    from serve.upkeep import CHECKS

    spec = cluster_spec(yaml.safe_load((KUBERAY / "rayservice.yaml").read_text()))
    (head,) = spec["headGroupSpec"]["template"]["spec"]["containers"]
    env = {one["name"]: one["value"] for one in head["env"]}
    assert float(env.pop("RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S")) < 10
    assert env.items() <= CHECKS.items()


def test_the_job_runs_a_job_of_this_repository() -> None:
    spec = yaml.safe_load((KUBERAY / "rayjob.yaml").read_text())["spec"]
    program, _, module, _recipe = spec["entrypoint"].split()
    assert program == "python"
    assert module.split(".")[0] == "jobs"
    assert "SSD1B_HOME" in yaml.safe_load(spec["runtimeEnvYAML"])["env_vars"]
