"""Plans in a bundle: really built for an A100, found again, verified with the rest, and not used on another machine."""

import json
import shutil

import pytest
import torch

from ssd1b.engines.bundle import Bundle
from ssd1b.engines.manifest import MANIFEST, verified
from ssd1b.engines.tensorrt.bundled import PLANS, Plans, add_plans, graphs_of, options_of
from ssd1b.engines.tensorrt.ensure import ready_plans
from ssd1b.engines.tensorrt.options import Target

pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed: pip install 'ssd1b[trt-rtx]'")
pytestmark = pytest.mark.trt


@pytest.mark.slow  # four graphs
def test_a_bundle_gets_its_plans_once_and_travels_with_them(tiny_bundle, tmp_path, monkeypatch):
    monkeypatch.setenv("SSD1B_HOME", str(tmp_path / "home"))
    folder, root = tmp_path / "bundle", tmp_path / "home" / "plans"
    shutil.copytree(tiny_bundle.folder, folder)
    sizes = tiny_bundle.sizes[:1]
    add_plans(folder, root, ["sm80"], sizes)
    manifest = json.loads((folder / MANIFEST).read_text())
    assert {entry["graph"] for entry in manifest["plans"]} == set(graphs_of(folder))
    assert all((folder / PLANS / entry["key"] / "plan").stat().st_size == entry["bytes"] for entry in manifest["plans"])
    assert verified(folder) == manifest
    assert Bundle.load(folder, "torch").manifest["plans"]

    built = {path: path.stat().st_mtime_ns for path in root.rglob("plan")}
    add_plans(folder, root, ["sm80"], sizes)
    assert {path: path.stat().st_mtime_ns for path in root.rglob("plan")} == built
    assert json.loads((folder / MANIFEST).read_text()) == manifest

    moved = tmp_path / "elsewhere"
    shutil.copytree(folder, moved)
    found = ready_plans(moved / PLANS, graphs_of(moved), Target("sm80"), options_of(moved, manifest, sizes))
    assert found is not None
    assert set(found.plans) == set(graphs_of(moved))
    plan = next(moved.glob(f"{PLANS}/*/plan"))
    plan.write_bytes(plan.read_bytes()[:-1] + b"x")
    with pytest.raises(ValueError, match="not the file that was exported"):
        Bundle.load(moved)


def test_without_a_gpu_nothing_is_built_for_it(tiny_bundle, tmp_path):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(ValueError, match="no CUDA device here"):
        Plans(tiny_bundle.folder, tiny_bundle.manifest, tmp_path, tiny_bundle.sizes)
    assert not list(tmp_path.iterdir())
