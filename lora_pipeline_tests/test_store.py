"""Files appear whole or not at all, and digests are remembered only while they hold."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lora_pipeline.store import DigestCache, Store, digest_bytes, digest_file, digest_tree, is_aside, whole, write_text

ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # SHA-256 of "abc", FIPS 180-2


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_when_it_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "picture.png"
    with whole(target) as aside:
        aside.write_bytes(b"half")
        assert not target.exists()
        assert aside.suffix == ".png"
        assert is_aside(aside)
    assert target.read_bytes() == b"half"
    assert names(target.parent) == ["picture.png"]


def test_a_writer_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    write_text(target, "old")
    with pytest.raises(RuntimeError), whole(target) as aside:  # noqa: PT012
        aside.write_text("new, but")
        raise RuntimeError
    assert target.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_a_reader_never_sees_half_a_file(tmp_path: Path) -> None:
    target = tmp_path / "a.bin"
    sizes = (100_000, 300_000)
    with whole(target) as aside:
        aside.write_bytes(b"x" * sizes[0])

    def write(number: int) -> None:
        with whole(target) as aside:
            aside.write_bytes(b"x" * sizes[number % 2])

    with ThreadPoolExecutor(4) as pool:
        writing = [pool.submit(write, number) for number in range(60)]
        seen: set[int] = set()
        while not all(one.done() for one in writing):
            seen.add(len(target.read_bytes()))
        for one in writing:
            one.result()
    assert seen <= set(sizes)
    assert names(tmp_path) == ["a.bin"]


def test_a_name_as_long_as_the_file_system_allows(tmp_path: Path) -> None:
    name = "é" * 125 + ".png"  # 254 of 255 bytes
    with whole(tmp_path / name) as aside:
        aside.write_bytes(b"1")
    assert names(tmp_path) == [name]


@pytest.mark.parametrize("name", ["holiday.part2.jpg", "a.12.part.jpg", "x.part", "0123456789abcdef.part.png"])
def test_a_persons_own_names_are_no_asides(name: str) -> None:
    assert not is_aside(Path(name))


def test_digests() -> None:
    assert digest_bytes(b"abc") == ABC


def test_a_trees_digest_is_of_names_and_bytes(tmp_path: Path) -> None:
    for folder, name in (("one", "a"), ("two", "a"), ("three", "b")):
        write_text(tmp_path / folder / "sub" / name, "abc")
    one, two, three = (digest_tree(tmp_path / name) for name in ("one", "two", "three"))
    assert one == two != three
    write_text(tmp_path / "two" / "sub" / "a", "abd")
    assert digest_tree(tmp_path / "two") != one


def test_a_file_that_did_not_change_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a"
    write_text(file, "abc")
    cache = DigestCache(tmp_path / "digests.json")
    assert cache.digest(file) == ABC
    cache.save()
    reads: list[Path] = []
    monkeypatch.setattr("lora_pipeline.store.digest_file", lambda path: reads.append(path) or digest_file(path))
    again = DigestCache(tmp_path / "digests.json")
    assert again.digest(file) == ABC
    assert reads == []
    os.utime(file, ns=(1, 1))
    assert again.digest(file) == ABC
    assert reads == [file]


def test_a_file_just_written_is_read_whatever_its_time(tmp_path: Path) -> None:
    file = tmp_path / "a"
    write_text(file, "abd")
    os.utime(file, ns=(5, 5))
    cache = DigestCache(tmp_path / "digests.json")
    cache.digest(file)
    write_text(file, "abc")
    os.utime(file, ns=(5, 5))  # as after two writes within a tick of the clock
    assert cache.anew(file) == ABC
    assert cache.digest(file) == ABC


@pytest.mark.parametrize("damage", ["", "[1, 2]", '{"a": 3}', '{"a": [1]}', "{", "null"])
def test_a_damaged_memory_only_costs_time(tmp_path: Path, damage: str) -> None:
    write_text(tmp_path / "digests.json", damage)
    write_text(tmp_path / "file", "abc")
    write_text(tmp_path / "digests.json", damage.replace('"a"', f'"{tmp_path / "file"}"'))
    cache = DigestCache(tmp_path / "digests.json")
    assert cache.digest(tmp_path / "file") == ABC


def test_what_is_not_asked_for_is_forgotten(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_text(tmp_path / name, "abc")
    cache = DigestCache(tmp_path / "digests.json")
    cache.digest(tmp_path / "a")
    cache.digest(tmp_path / "b")
    cache.save()
    cache = DigestCache(tmp_path / "digests.json")
    cache.digest(tmp_path / "a")
    cache.save()
    assert str(tmp_path / "b") not in (tmp_path / "digests.json").read_text()


def test_the_two_trees(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert store.subject("ann") == tmp_path / "subjects" / "ann"
    assert store.work("ann", "crop") == tmp_path / "work" / "ann" / "crop"
