"""Plans: nothing reaches the library's deserialiser but the very bytes that a trusted key has signed."""

import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest
from trt_stand_in import job_of, plan_bytes, stand_in

from ssd1b.engines.tensorrt import plans, signing
from ssd1b.engines.tensorrt.ensure import known, load_plan
from ssd1b.engines.tensorrt.plans import UntrustedError, bytes_of, find, may_build, publish
from ssd1b.engines.tensorrt.runtime_cache import verified, write_signed

CONTENT = plan_bytes([(2, (8, 8), (8, 8))])


@pytest.fixture
def library():
    return stand_in()


@pytest.fixture
def plan(home, library):
    return publish(home / "plans", job_of(library[0], CONTENT), CONTENT, 1.0)


def flip(path: Path, at: int = 7) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(bytes(content))


def test_a_signed_plan_is_deserialised_as_it_was_written(plan, library):
    loaded = load_plan(plan, library[0])
    assert loaded.engine.num_optimization_profiles == 1
    assert library[1] == [CONTENT]
    manifest = json.loads((plan.folder / "manifest.json").read_text())
    assert manifest["bytes"] == len(CONTENT)
    assert manifest["seconds"] == 1.0
    assert manifest["parts"]["capability"] == "sm80"
    assert len(manifest["sha256"]) == 64


def linked(plan):
    real = plan.folder.parent / "elsewhere"
    (plan.folder / "plan").rename(real)
    (plan.folder / "plan").symlink_to(real)


def linked_folder(plan):
    real = plan.folder.parent / "elsewhere"
    plan.folder.rename(real)
    plan.folder.symlink_to(real)


def claims_another_hash(plan):
    path = plan.folder / "manifest.json"
    evil = b"x" * 40
    (plan.folder / "plan").write_bytes(evil)
    manifest = json.loads(path.read_text()) | {"sha256": hashlib.sha256(evil).hexdigest(), "bytes": 40}
    path.write_text(json.dumps(manifest, indent=1, sort_keys=True))


TAMPERED = {
    "a byte of the plan": (lambda plan: flip(plan.folder / "plan"), "not the plan that was signed"),
    "a byte too many": (lambda p: (p.folder / "plan").open("ab").write(b"x"), "not the plan that was signed"),
    "a byte too few": (lambda p: (p.folder / "plan").write_bytes(CONTENT[:-1]), "not the plan that was signed"),
    "a byte of the manifest": (lambda plan: flip(plan.folder / "manifest.json"), "not signed by a trusted key"),
    "plan and manifest together": (claims_another_hash, "not signed by a trusted key"),
    "a byte of the signature": (lambda plan: flip(plan.folder / "signature"), "not signed by a trusted key"),
    "no signature": (lambda plan: (plan.folder / "signature").unlink(), "signature is missing"),
    "no manifest": (lambda plan: (plan.folder / "manifest.json").unlink(), "manifest.json is missing"),
    "no plan": (lambda plan: (plan.folder / "plan").unlink(), "plan is missing"),
    "a link to the plan": (linked, "is a link"),
    "a link to the folder": (linked_folder, "is a link"),
    "a pipe": (
        lambda p: ((p.folder / "plan").unlink(), os.mkfifo(p.folder / "plan")),
        "not a plain file",
    ),
}


@pytest.mark.parametrize("what", TAMPERED)
def test_what_was_changed_since_never_reaches_the_library(what, plan, library):
    tamper, message = TAMPERED[what]
    tamper(plan)
    with pytest.raises(UntrustedError, match=message):
        load_plan(plan, library[0])
    assert library[1] == []


def test_every_flipped_byte_of_plan_and_manifest_is_found(plan, library):
    for name in ("plan", "manifest.json", "signature"):
        path = plan.folder / name
        for at in range(path.stat().st_size):
            flip(path, at)
            with pytest.raises(UntrustedError):
                load_plan(plan, library[0])
            flip(path, at)
    assert library[1] == []
    load_plan(plan, library[0])


def test_two_signed_plans_cannot_stand_in_for_each_other(plan, library):
    other_content = plan_bytes([(4, (8, 8), (8, 8))])
    other = publish(plan.folder.parent, job_of(library[0], other_content), other_content, 1.0)
    shutil.copy(other.folder / "plan", plan.folder / "plan")
    with pytest.raises(UntrustedError, match="not the plan that was signed"):
        load_plan(plan, library[0])
    for name in ("manifest.json", "signature"):
        shutil.copy(other.folder / name, plan.folder / name)
    with pytest.raises(UntrustedError, match=f"holds the plan {other.folder.name}"):
        load_plan(plan, library[0])
    assert library[1] == []


def test_another_key_is_not_trusted(plan, library, tmp_path, monkeypatch):
    monkeypatch.setenv("SSD1B_PLAN_KEY", str(tmp_path / "attacker" / "key"))
    monkeypatch.setenv("SSD1B_PLAN_TRUST", str(tmp_path / "keys" / "plans.pub"))
    with pytest.raises(ValueError, match="this machine's key is not among those it trusts"):
        may_build()
    theirs = job_of(library[0], CONTENT, by="attacker")
    with pytest.raises(UntrustedError, match="not signed by a trusted key"):
        publish(plan.folder.parent, theirs, CONTENT, 1.0)
    with pytest.raises(UntrustedError, match="not signed by a trusted key"):
        find(plan.folder.parent, theirs.key)
    assert load_plan(plan, library[0])
    assert library[1] == [CONTENT]


def test_trust_may_be_a_folder_of_keys(plan, library, tmp_path, monkeypatch):
    trusted = tmp_path / "trusted"
    trusted.mkdir()
    monkeypatch.setenv("SSD1B_PLAN_TRUST", str(trusted))
    with pytest.raises(ValueError, match="no trusted key at"):
        load_plan(plan, library[0])
    (trusted / "other.pub").write_bytes(bytes(range(32)))
    with pytest.raises(UntrustedError):
        load_plan(plan, library[0])
    shutil.copy(tmp_path / "keys" / "plans.pub", trusted / "builder.pub")
    assert load_plan(plan, library[0])
    (trusted / "short.pub").write_bytes(b"short")
    with pytest.raises(ValueError, match=r"not the 32 bytes of an Ed25519 public key: .*short\.pub"):
        load_plan(plan, library[0])


@pytest.mark.usefixtures("plan")
def test_the_private_key_is_for_its_owner_alone(home):
    key = home / "keys" / "plans"
    assert key.stat().st_mode & 0o777 == 0o600
    key.chmod(0o640)
    with pytest.raises(ValueError, match="others can read the private key"):
        signing.private_key()
    key.chmod(0o600)
    key.write_bytes(b"short")
    with pytest.raises(ValueError, match="holds 5 bytes"):
        signing.private_key()


def test_a_plan_that_is_not_trusted_counts_as_none_and_gives_way(plan, library, caplog):
    folder, job = plan.folder.parent, job_of(library[0], CONTENT)
    flip(plan.folder / "signature")
    assert known(folder, job.key) is None
    assert "a plan is not used" in caplog.text
    again = publish(folder, job, CONTENT, 2.0)
    assert again.manifest["seconds"] == 2.0
    assert bytes_of(again) == CONTENT


def test_of_two_builders_the_first_to_finish_is_kept(plan, library):
    again = publish(plan.folder.parent, job_of(library[0], CONTENT), CONTENT, 99.0)
    assert again.manifest["seconds"] == 1.0
    assert not list(plan.folder.parent.glob("*.new"))


def test_a_plan_of_another_version_is_refused_before_it_is_read(plan):
    newer, asked = stand_in(version="11.5.0.1")
    with pytest.raises(ValueError, match=r"built by tensorrt 11\.4\.0\.106, here is 11\.5\.0\.1: build it again"):
        load_plan(plan, newer)
    assert asked == []


def test_a_plan_for_another_gpu_is_refused_before_it_is_read(plan, library, monkeypatch):
    monkeypatch.setattr("ssd1b.engines.tensorrt.ensure.capability_here", lambda: "sm90")
    with pytest.raises(ValueError, match="for sm80, this GPU is sm90"):
        load_plan(plan, library[0])
    assert library[1] == []


def test_nothing_half_written_is_ever_found(home, library, monkeypatch):
    job = job_of(library[0], CONTENT)

    def dies(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(plans.os, "fsync", dies)
    with pytest.raises(KeyboardInterrupt):
        publish(home / "plans", job, CONTENT, 1.0)
    with pytest.raises(FileNotFoundError):
        find(home / "plans", job.key)


@pytest.mark.usefixtures("plan")
def test_compiled_kernels_are_signed_too(home):
    path = home / "runtime" / "kernels"
    write_signed(path, b"kernels")
    assert verified(path) == b"kernels"
    flip(path, 66)
    with pytest.raises(UntrustedError, match="not signed by a trusted key"):
        verified(path)
