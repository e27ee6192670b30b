"""Names of adapters: one question for all of them, kept for a moment; folders from which no name leads out."""

import asyncio
import json
import os
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from registry import adapter_folder, register_lora, register_nano
from safetensors.torch import save_file

from serve.adapters import catalogue as module
from serve.adapters.catalogue import FRESH_S, SHARE, STALE_S, Catalogue, Folder, Registry, Several, read_whole
from serve.errors import RequestError
from ssd1b import tracking


class Place:
    """Counts how often it is asked; away while `away` is set."""

    def __init__(self, **known: str) -> None:
        self.known, self.asked, self.singly, self.away = known, 0, 0, False

    def all(self) -> Mapping[str, str]:
        self.asked += 1
        if self.away:
            raise ConnectionError("the registry is away")
        return dict(self.known)

    def find(self, name: str) -> str | None:
        self.singly += 1
        if self.away:
            raise ConnectionError("the registry is away")
        return self.known.get(name)

    def fetch(self, key: str) -> Path:
        return Path(key)


def test_many_look_ups_are_one_question() -> None:
    place, clock = Place(ink="1"), [1.0]

    async def scene() -> None:
        catalogue = Catalogue(place, lambda: clock[0])
        assert await asyncio.gather(*(catalogue.find("ink") for _ in range(50))) == ["1"] * 50
        assert place.asked == 1
        clock[0] += FRESH_S / 2
        assert await catalogue.names() == ("ink",)
        assert place.asked == 1

    asyncio.run(scene())


def test_what_is_old_is_asked_for_beside_the_answer_and_what_is_very_old_before_it() -> None:
    place, clock = Place(ink="1"), [1.0]

    async def scene() -> None:
        catalogue = Catalogue(place, lambda: clock[0])
        await catalogue.find("ink")
        place.known = {"ink": "2"}
        clock[0] += 2 * FRESH_S
        assert await catalogue.find("ink") == "1"
        while place.asked < 2 or await catalogue.find("ink") == "1":
            await asyncio.sleep(0.01)
        place.known = {"ink": "3"}
        clock[0] += STALE_S + FRESH_S
        assert await catalogue.find("ink") == "3"

    asyncio.run(asyncio.wait_for(scene(), 5))


def test_a_name_that_is_new_is_asked_for_alone_and_then_known() -> None:
    place, clock = Place(), [1.0]

    async def scene() -> None:
        catalogue = Catalogue(place, lambda: clock[0])
        assert await catalogue.find("ink") is None
        place.known = {"ink": "1"}
        assert [await catalogue.find("ink") for _ in range(3)] == ["1"] * 3
        assert await catalogue.names() == ("ink",)
        assert (place.asked, place.singly) == (1, 2)

    asyncio.run(scene())


def test_one_adapter_is_looked_for_anew_and_what_changed_is_known_from_then_on() -> None:
    place = Place(ink="1", chalk="1")

    async def scene() -> None:
        catalogue = Catalogue(place, lambda: 1.0)
        assert await catalogue.find("ink") == "1"
        assert await catalogue.renewed("ink") == "1"
        place.known = {"ink": "2"}
        assert await catalogue.renewed("ink") == "2"
        assert await catalogue.find("ink") == "2"
        assert await catalogue.renewed("chalk") is None
        assert await catalogue.find("chalk") is None

    asyncio.run(scene())


def test_what_changes_while_it_is_read_is_not_taken_for_either(tmp_path: Path) -> None:
    file = tmp_path / "ink.safetensors"
    save_file({"a": torch.zeros(2)}, file)
    folder = Folder(tmp_path)
    assert read_whole(folder, folder.all()["ink"], Path.read_bytes) == file.read_bytes()

    def overwritten(path: Path) -> bytes:
        os.utime(path, ns=(1, 1))
        return path.read_bytes()

    with pytest.raises(ValueError, match="changed or removed"):
        read_whole(folder, folder.all()["ink"], overwritten)

    def removed(path: Path) -> bytes:
        path.unlink()
        return path.read_bytes()

    with pytest.raises(ValueError, match="just been removed"):
        read_whole(folder, folder.all()["ink"], removed)
    assert folder.all() == {}


def test_a_file_that_goes_while_its_folder_is_listed_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "ghost.safetensors").symlink_to(tmp_path / "nowhere")
    save_file({"a": torch.zeros(2)}, tmp_path / "ink.safetensors")
    assert list(Folder(tmp_path).all()) == ["ink"]


def test_a_listing_that_takes_long_is_made_seldom() -> None:
    place, clock = Place(ink="1"), [1.0]

    def slow() -> Mapping[str, str]:
        clock[0] += 0.4
        return Place.all(place)

    place.all = slow  # type: ignore[method-assign]

    async def scene() -> None:
        catalogue = Catalogue(place, lambda: clock[0])
        for _ in range(1000):
            clock[0] += 0.1
            await catalogue.find("ink")
            await asyncio.sleep(0)
            while catalogue._looking and not catalogue._looking.done():
                await asyncio.sleep(0.001)

    asyncio.run(scene())
    assert 5 <= place.asked <= SHARE * 140 / 0.4


def test_while_the_registry_is_away_what_was_known_goes_on() -> None:
    place, clock = Place(ink="1"), [1.0]

    async def scene() -> None:
        catalogue = Catalogue(place, lambda: clock[0])
        await catalogue.find("ink")
        place.away = True
        clock[0] += 10 * STALE_S
        assert await catalogue.find("ink") == "1"
        with pytest.raises(RequestError, match="cannot be reached"):
            await catalogue.find("chalk")
        place.away, place.known = False, {"ink": "2"}
        clock[0] += 10 * STALE_S
        assert await catalogue.find("ink") == "2"
        never = Catalogue(Place(), lambda: clock[0])
        never._adapters.away = True  # type: ignore[attr-defined]
        with pytest.raises(RequestError, match="cannot be reached") as info:
            await never.names()
        assert info.value.status == 503

    asyncio.run(scene())


@pytest.mark.usefixtures("home")
def test_the_registry_by_one_query(tmp_path: Path) -> None:
    register_nano()
    folder = adapter_folder(tmp_path / "ink")
    for name in ("ink", "chalk"):
        register_lora(name, folder)
    register_lora("ink", folder)
    register_lora("other", folder, model="ssd1bXnano")  # LIKE's wildcard would find it
    tracking.register("ssd1b-nano-lora-draft", folder, tags={"kind": "lora", "base": "ssd1b-nano", "lora": "draft"})
    registry = Registry("ssd1b-nano")
    assert registry.all() == {"ink": "models:/ssd1b-nano-lora-ink/2", "chalk": "models:/ssd1b-nano-lora-chalk/1"}
    assert registry.find("ink") == "models:/ssd1b-nano-lora-ink/2"
    for name in ("draft", "inc", "../ink", "ink@champion", "ink/1", ""):
        assert registry.find(name) is None
    assert (registry.fetch("models:/ssd1b-nano-lora-ink/2") / "adapter_config.json").is_file()


def peft(folder: Path) -> Path:
    folder.mkdir(parents=True)
    save_file({"base_model.model.x.lora_A.weight": torch.zeros(2, 4)}, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"r": 2}))
    return folder


def test_a_folder_of_adapters(tmp_path: Path) -> None:
    secret = tmp_path / "secret.safetensors"
    save_file({"x": torch.zeros(1)}, secret)
    folder = tmp_path / "adapters"
    peft(folder / "ink")
    save_file({"x": torch.zeros(1)}, folder / "chalk v1.2.safetensors")
    save_file({"x": torch.zeros(1)}, folder / ".hidden.safetensors")
    (folder / "notes.txt").write_text("no adapter")
    (folder / "old.ckpt").write_bytes(b"a pickle")
    found = Folder(folder)
    assert sorted(found.all()) == ["chalk v1.2", "ink"]
    assert found.fetch(found.all()["ink"]) == folder / "ink"
    assert found.fetch(found.all()["chalk v1.2"]) == folder / "chalk v1.2.safetensors"

    catalogue = Catalogue(found)
    for name in ("../secret", "../secret.safetensors", str(secret), "ink/../../secret", "ink/adapter_model", "", "."):
        assert asyncio.run(catalogue.find(name)) is None


def test_an_adapter_that_is_written_anew_is_another_and_a_removed_one_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "ink.safetensors"
    save_file({"x": torch.zeros(1)}, file)
    folder = Folder(tmp_path)
    old = folder.all()["ink"]
    os.utime(file, ns=(1, 1))
    assert folder.all()["ink"] != old
    with pytest.raises(ValueError, match="changed or removed"):
        folder.fetch(old)
    file.unlink()
    assert folder.all() == {}


def test_files_that_are_no_adapters_are_refused_before_they_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "page.safetensors").write_text("<html>not found</html>")
    save_file({f"key{i}": torch.zeros(1) for i in range(5)}, tmp_path / "many.safetensors")
    folder = Folder(tmp_path)
    with pytest.raises(ValueError, match="page"):
        folder.fetch(folder.all()["page"])
    monkeypatch.setattr(module, "KEYS", 4)
    with pytest.raises(ValueError, match="holds 5 tensors"):
        folder.fetch(folder.all()["many"])
    monkeypatch.setattr(module, "FILE_BYTES", 10)
    with pytest.raises(ValueError, match="at most 10"):
        folder.fetch(folder.all()["many"])
    with pytest.raises(ValueError, match="no folder"):
        Folder(tmp_path / "nowhere")


def test_of_equal_names_the_first_place_counts() -> None:
    several = Several([Place(ink="here"), Place(ink="there", chalk="c:1")])
    assert several.all() == {"ink": "0:here", "chalk": "1:c:1"}
    assert several.fetch("1:c:1") == Path("c:1")
