from __future__ import annotations

import hashlib
import json
import os
import stat
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from fsmde_edge.errors import DeviceError, FsmdeError, InputError, OutputError
from fsmde_edge.inference.store import Chosen, Key, Receipt, Store, differences
from fsmde_edge.targets import BuilderOptions

KEY = Key(
    bundle="b" * 64, backend="tensorrt", precision="int8-fp16", identity={"sm": "8.7", "tensorrt": "10.3"}
)
ENGINE = b"native code"


def receipt_of(engine: bytes = ENGINE, key: Key = KEY, created: str = "2026-01-01") -> Receipt:
    digest = hashlib.sha256(engine).hexdigest()
    return Receipt(
        key=key,
        engine=digest,
        size=len(engine),
        numbers={"mean": 0.001},
        latency_ms={"p50": 10.0},
        build_s=1.5,
        created=created,
    )


@pytest.fixture
def store(tmp_path) -> Store:
    store = Store(tmp_path / "state" / "engines")
    store.put(receipt_of(), ENGINE)
    return store


def files(store: Store) -> dict[str, Path]:
    folder = store.root / KEY.bundle / KEY.folder
    return {
        "root": store.root,
        "folder": folder,
        "receipt": folder / "receipt.json",
        "engine": next(iter(folder.glob("*.engine"))),
    }


def read(store: Store) -> bytes:
    receipt = store.receipt(KEY)
    assert receipt is not None
    return store.engine(receipt)


def test_what_was_put_comes_back(store):
    assert store.receipt(KEY) == receipt_of()
    assert read(store) == ENGINE
    assert store.receipts(KEY.bundle, KEY.backend) == [receipt_of()]


def test_all_of_it_is_the_users_alone(store):
    found = [store.root, *store.root.rglob("*")]
    assert {stat.S_IMODE(path.stat().st_mode) for path in found if path.is_dir()} == {0o700}
    assert {stat.S_IMODE(path.stat().st_mode) for path in found if path.is_file()} == {0o600}


@pytest.mark.parametrize(
    "change",
    [
        {"bundle": "c" * 64},
        {"precision": "fp16"},
        {"identity": {**KEY.identity, "sm": "8.9"}},
        {"options": BuilderOptions(workspace_mb=2)},
    ],
    ids=str,
)
def test_another_key_has_no_receipt(store, change):
    assert store.receipt(replace(KEY, **change)) is None


def test_an_empty_store_holds_nothing_and_is_not_made_by_looking(tmp_path):
    store = Store(tmp_path / "engines")
    assert store.receipt(KEY) is None
    assert store.chosen(KEY.bundle) is None
    assert store.cache("timing") is None
    assert not store.root.exists()


@pytest.mark.parametrize("place", ["root", "folder", "receipt", "engine"])
def test_what_others_may_write_is_refused(store, place):
    path = files(store)[place]
    path.chmod(path.stat().st_mode | 0o020)
    with pytest.raises(DeviceError, match="others may use it") as caught:
        read(store)
    assert str(path) in str(caught.value)
    assert caught.value.exit_code == 5


@pytest.mark.skipif(os.geteuid() != 0, reason="giving a file away needs root")
@pytest.mark.parametrize("place", ["root", "folder", "receipt", "engine"])
def test_what_belongs_to_somebody_else_is_refused(store, place):
    os.chown(files(store)[place], 12345, -1)
    with pytest.raises(DeviceError, match="belongs to user 12345"):
        read(store)


@pytest.mark.parametrize("place", ["root", "folder", "receipt", "engine"])
def test_a_link_is_refused(store, tmp_path, place):
    path = files(store)[place]
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DeviceError, match="cannot be trusted"):
        read(store)


def test_a_pipe_in_the_place_of_an_engine_is_refused_and_not_waited_for(store):
    path = files(store)["engine"]
    path.unlink()
    os.mkfifo(path, 0o600)
    with pytest.raises(DeviceError, match="cannot be trusted"):
        read(store)


@pytest.mark.parametrize("position", range(0, len(ENGINE), 3))
def test_a_flipped_byte_of_an_engine_is_found(store, position):
    path = files(store)["engine"]
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)
    with pytest.raises(DeviceError, match="is not the engine that its receipt describes"):
        read(store)


def test_a_changed_receipt_is_damaged_wherever_it_changed(store):
    path = files(store)["receipt"]
    whole = path.read_bytes()
    for position in range(0, len(whole), 7):
        content = bytearray(whole)
        content[position] ^= 2
        path.write_bytes(content)
        with pytest.raises(FsmdeError) as caught:
            read(store)
        assert str(path) in str(caught.value)
        assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"\xff", b'{"sha256": 1}'])
def test_a_receipt_that_is_none_is_damaged(store, content):
    files(store)["receipt"].write_bytes(content)
    with pytest.raises(InputError, match="is damaged"):
        store.receipt(KEY)


def test_an_engine_that_is_gone_is_missing(store):
    files(store)["engine"].unlink()
    with pytest.raises(DeviceError, match="is missing from the engine store"):
        read(store)


def test_a_receipt_of_another_machine_is_refused_with_the_difference(store):
    elsewhere = replace(KEY, identity={"sm": "8.9", "tensorrt": "10.3"})
    path = files(store)["folder"]
    path.rename(path.with_name(elsewhere.folder))
    with pytest.raises(DeviceError, match=r"built elsewhere \(sm 8\.7 -> 8\.9\)"):
        store.receipt(elsewhere)


def test_receipts_of_a_bundle_come_newest_first(store):
    for created, version in (("2026-02-01", "10.16"), ("2026-03-01", "11.4")):
        key = replace(KEY, identity={"sm": "8.7", "tensorrt": version})
        store.put(receipt_of(key=key, created=created), ENGINE)
    found = [receipt.key.identity["tensorrt"] for receipt in store.receipts(KEY.bundle, KEY.backend)]
    assert found == ["11.4", "10.16", "10.3"]
    assert store.receipts(KEY.bundle, "openvino") == []
    assert store.receipts("c" * 64, KEY.backend) == []


def test_a_receipt_in_anothers_place_is_refused_in_a_list_too(store):
    path = files(store)["folder"]
    path.rename(path.with_name(f"{KEY.label}-elsewhere"))
    with pytest.raises(DeviceError, match="built elsewhere"):
        store.receipts(KEY.bundle, KEY.backend)


def test_the_engine_before_the_present_one_can_be_put_back_and_nothing_older_stays(store):
    for number in (1, 2):
        store.put(receipt_of(b"%d" % number, created=f"2026-0{number + 1}-01"), b"%d" % number)
    assert read(store) == b"2"
    assert len(list(files(store)["folder"].glob("*.engine"))) == 2
    assert store.rollback(KEY).engine == hashlib.sha256(b"1").hexdigest()
    assert read(store) == b"1"
    store.rollback(KEY)
    assert read(store) == b"2"


def test_there_is_nothing_to_go_back_to_at_first(store):
    with pytest.raises(InputError, match="no earlier tensorrt-int8-fp16 engine"):
        store.rollback(KEY)


def test_a_damaged_engine_is_replaced_and_not_kept(store):
    files(store)["receipt"].write_bytes(b"{}")
    store.put(receipt_of(b"new"), b"new")
    assert read(store) == b"new"
    with pytest.raises(InputError, match="no earlier"):
        store.rollback(KEY)


def test_the_choice_comes_back_and_is_sealed_too(store):
    chosen = Chosen(key=KEY, reason="1.8 times as fast as fp16")
    store.choose(chosen)
    assert store.chosen(KEY.bundle) == chosen
    path = store.root / KEY.bundle / "choice.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "reason": "because"}))
    with pytest.raises(InputError, match="is damaged"):
        store.chosen(KEY.bundle)


def test_a_full_disk_is_one_line_and_the_old_engine_stays(tiny_disk):
    store = Store(tiny_disk / "engines")
    store.put(receipt_of(), ENGINE)
    large = os.urandom(1 << 19)
    with pytest.raises(OutputError, match="No space left"):
        store.put(receipt_of(large), large)
    assert read(store) == ENGINE
    assert not list(store.root.rglob(".tmp-*"))


def test_a_read_only_disk_is_one_line(read_only_folder):
    with pytest.raises(OutputError, match=r"cannot be written"):
        Store(read_only_folder / "engines").put(receipt_of(), ENGINE)


def test_a_store_that_is_a_file_is_one_line(tmp_path):
    (tmp_path / "engines").write_text("")
    with pytest.raises(FsmdeError, match="engines"):
        Store(tmp_path / "engines").put(receipt_of(), ENGINE)


def test_caches_are_kept_and_checked_like_engines(store):
    store.keep_cache("timing", b"times")
    assert store.cache("timing") == b"times"
    (store.root / "caches" / "timing").chmod(0o666)
    with pytest.raises(DeviceError, match="others may use it"):
        store.cache("timing")


def test_differences_name_what_changed():
    before, now = {"sm": "8.7", "tensorrt": "10.3", "cuda": "12.6"}, {"sm": "8.7", "tensorrt": "10.16"}
    assert differences(before, now) == ["cuda 12.6 -> none", "tensorrt 10.3 -> 10.16"]
    assert differences(now, now) == []


def test_a_folder_in_a_files_place_is_named(store):
    files(store)["receipt"].unlink()
    files(store)["receipt"].mkdir(mode=0o700)
    with pytest.raises(DeviceError, match=r"receipt\.json: cannot be trusted: it is something else"):
        store.receipt(KEY)


def test_a_file_in_a_folders_place_is_named(tmp_path):
    (tmp_path / "engines").write_bytes(b"")
    with pytest.raises(DeviceError, match="it is something else than the store makes"):
        Store(tmp_path / "engines").put(receipt_of(), ENGINE)


def test_a_choice_for_another_bundle_is_refused(store):
    store.choose(Chosen(key=KEY, reason="fastest"))
    store.root.joinpath(KEY.bundle).rename(store.root / ("c" * 64))
    with pytest.raises(InputError, match="written for another bundle"):
        store.chosen("c" * 64)


@pytest.mark.parametrize("change", [{"engine": "../../etc/passwd"}, {"latency_ms": {}}], ids=str)
def test_a_receipt_says_which_engine_and_how_fast(change):
    with pytest.raises(InputError, match="SHA-256 and its latency"):
        replace(receipt_of(), **change)


def test_two_that_put_at_once_wait_for_each_other(store, monkeypatch):
    """Else one prunes the engine that the other has written and has no receipt of yet."""
    other, late = b"another engine", threading.Event()
    write, first = Store._write, threading.Event()

    def slow(self, path, content):
        write(self, path, content)
        if content == other:
            first.set()
            late.wait(0.3)

    monkeypatch.setattr(Store, "_write", slow)
    threads = [
        threading.Thread(target=store.put, args=(receipt_of(engine), engine)) for engine in (other, b"third")
    ]
    threads[0].start()
    first.wait(5)
    threads[1].start()
    for thread in threads:
        thread.join()
    assert read(store) == b"third"
    assert store.rollback(KEY) == receipt_of(other)
    assert read(store) == other


def test_a_relative_state_home_counts_as_none(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    for value in ("", "relative/place", "~/place"):
        monkeypatch.setenv("XDG_STATE_HOME", value)
        assert Store().root == tmp_path / ".local/state/fsmde-edge/engines"


def test_a_user_without_a_home_is_told_what_to_set(monkeypatch):
    def nowhere():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", nowhere)
    with pytest.raises(OutputError, match="set XDG_STATE_HOME"):
        Store()
