from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import textwrap

import pytest

from fsmde_edge.errors import OutputError
from fsmde_edge.files import atomic_file, atomic_folder, atomic_write, cache_home, check_writable


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_relative_cache_home_counts_as_none(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    for value in ("", "relative/place", "~/place"):
        monkeypatch.setenv("XDG_CACHE_HOME", value)
        assert cache_home() == tmp_path / ".cache/fsmde-edge"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "mine"))
    assert cache_home() == tmp_path / "mine/fsmde-edge"


def test_write_makes_parents_and_replaces_whole(tmp_path):
    file = tmp_path / "a/b/c.bin"
    atomic_write(file, b"old")
    atomic_write(file, b"new")
    assert file.read_bytes() == b"new"
    assert names(file.parent) == ["c.bin"]


def test_a_failed_block_leaves_the_old_file_and_nothing_else(tmp_path):
    file = tmp_path / "c.bin"
    atomic_write(file, b"old")
    with pytest.raises(RuntimeError), atomic_file(file) as temporary:  # noqa: PT012
        temporary.write_bytes(b"half")
        raise RuntimeError
    assert file.read_bytes() == b"old"
    assert names(tmp_path) == ["c.bin"]


def test_a_path_through_a_file_is_one_clear_line(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match="a part of this path is a file"):
        atomic_write(tmp_path / "file/x.bin", b"")
    with pytest.raises(OutputError, match="a part of this path is a file"):
        atomic_write(tmp_path / "file/y/x.bin", b"")


def test_writing_over_a_folder_is_refused(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError, match="cannot be written"):
        atomic_write(tmp_path / "folder", b"")
    assert names(tmp_path) == ["folder"]


def write_to_a_full_disk(path):
    with atomic_file(path) as temporary:
        temporary.symlink_to("/dev/full")  # refuses every write, like a full disk
        temporary.write_bytes(b"x")


def fill_the_disk_in_a_folder(path):
    with atomic_folder(path) as folder:
        (folder / "part").write_bytes(b"x")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("write", [write_to_a_full_disk, fill_the_disk_in_a_folder])
def test_a_full_disk_is_an_output_error_and_leaves_nothing(tmp_path, write):
    with pytest.raises(OutputError, match=r"No space left.*free some space"):
        write(tmp_path / "out")
    assert names(tmp_path) == []


def test_other_errors_of_the_block_pass_untouched(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_folder(tmp_path / "bundle"):
        (tmp_path / "absent").read_bytes()
    assert names(tmp_path) == []


def test_a_folder_appears_with_all_its_files(tmp_path):
    with atomic_folder(tmp_path / "x/bundle") as folder:
        (folder / "sub").mkdir()
        (folder / "sub/file").write_bytes(b"1")
        assert not (tmp_path / "x/bundle").exists()
    assert (tmp_path / "x/bundle/sub/file").read_bytes() == b"1"
    assert names(tmp_path / "x") == ["bundle"]


def test_an_existing_folder_is_refused_before_any_work(tmp_path):
    (tmp_path / "bundle").mkdir()
    with pytest.raises(OutputError, match=r"already exists.*--force"), atomic_folder(tmp_path / "bundle"):
        pytest.fail("the block must not run")


def test_force_swaps_the_old_folder_whole(tmp_path):
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle/old").write_bytes(b"")
    with atomic_folder(tmp_path / "bundle", force=True) as folder:
        (folder / "new").write_bytes(b"")
        assert names(tmp_path / "bundle") == ["old"]
    assert names(tmp_path / "bundle") == ["new"]
    assert names(tmp_path) == ["bundle"]


def test_force_keeps_the_old_folder_when_the_block_fails(tmp_path):
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle/old").write_bytes(b"")
    with pytest.raises(KeyboardInterrupt), atomic_folder(tmp_path / "bundle", force=True):
        raise KeyboardInterrupt
    assert names(tmp_path / "bundle") == ["old"]
    assert names(tmp_path) == ["bundle"]


def test_force_does_not_delete_what_is_not_ours(tmp_path):
    (tmp_path / "home").mkdir()
    with (
        pytest.raises(OutputError, match="not something that this command made"),
        atomic_folder(tmp_path / "home", True, replaceable=lambda old: (old / "manifest.json").exists()),
    ):
        pytest.fail("the block must not run")


@pytest.mark.parametrize("old", [False, True])
def test_a_killed_process_leaves_only_hidden_leftovers_that_the_next_run_removes(tmp_path, old):
    bundle = tmp_path / "bundle"
    if old:
        bundle.mkdir()
        (bundle / "old").write_bytes(b"")
    script = f"""
        import os, signal
        from pathlib import Path
        from fsmde_edge.files import atomic_folder
        with atomic_folder(Path({str(bundle)!r}), force=True) as folder:
            (folder / "half").write_bytes(b"x")
            os.kill(os.getpid(), signal.SIGKILL)
    """
    child = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=False)
    assert child.returncode == -signal.SIGKILL
    visible = [name for name in names(tmp_path) if not name.startswith(".")]
    assert visible == (["bundle"] if old else [])
    assert len(names(tmp_path)) == len(visible) + 1
    with atomic_folder(bundle, force=True) as folder:
        (folder / "new").write_bytes(b"")
    assert names(tmp_path) == ["bundle"]
    assert names(bundle) == ["new"]


def test_a_process_killed_between_the_two_renames_loses_nothing(tmp_path):
    (tmp_path / ".old-bundle").mkdir()
    (tmp_path / ".old-bundle/old").write_bytes(b"")
    with pytest.raises(OutputError, match="already exists"), atomic_folder(tmp_path / "bundle"):
        pass
    assert names(tmp_path / "bundle") == ["old"]


def test_the_unfinished_folder_of_a_living_run_is_left_alone(tmp_path):
    with atomic_folder(tmp_path / "bundle") as first:
        (first / "file").write_bytes(b"1")
        with atomic_folder(tmp_path / "bundle[1]*"), atomic_folder(tmp_path / "bundle2"):
            pass
        with pytest.raises(RuntimeError), atomic_folder(tmp_path / "bundle"):
            raise RuntimeError
        assert (first / "file").exists()
    assert (tmp_path / "bundle/file").read_bytes() == b"1"


@pytest.mark.parametrize("content", [{"thesis.tex": b"x"}, {}])
def test_what_appears_while_a_folder_is_filled_is_never_touched(tmp_path, content):
    out = tmp_path / "out"
    with pytest.raises(OutputError, match="already exists"), atomic_folder(out) as folder:  # noqa: PT012
        (folder / "new").write_bytes(b"")
        out.mkdir()
        for name, data in content.items():
            (out / name).write_bytes(data)
    assert names(out) == sorted(content)
    assert names(tmp_path) == ["out"]


def test_force_asks_again_before_it_replaces(tmp_path):
    out = tmp_path / "out"
    ours = lambda path: (path / "ours").exists()  # noqa: E731
    with (  # noqa: PT012
        pytest.raises(OutputError, match="does not delete it"),
        atomic_folder(out, force=True, replaceable=ours) as folder,
    ):
        (folder / "ours").write_bytes(b"")
        out.mkdir()
        (out / "thesis.tex").write_bytes(b"x")
    assert names(out) == ["thesis.tex"]


@pytest.mark.parametrize("path", ["/", "."])
def test_a_place_without_a_name_is_refused(tmp_path, monkeypatch, path):
    from pathlib import Path

    monkeypatch.chdir(tmp_path)
    with pytest.raises(OutputError):
        atomic_write(Path(path), b"")
    with pytest.raises(OutputError), atomic_folder(Path(path)):
        pytest.fail("the block must not run")
    assert names(tmp_path) == []


def test_a_target_is_tried_before_long_work(tmp_path):
    check_writable(tmp_path / "a/b.json")
    assert names(tmp_path / "a") == []
    with pytest.raises(OutputError, match="cannot be written"):
        check_writable(tmp_path / "a")


def test_a_circle_of_links_is_one_line(tmp_path):
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with pytest.raises(OutputError), atomic_folder(tmp_path / "a" / "out"):
        pytest.fail("the block must not run")


def test_what_is_no_regular_file_is_never_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OutputError, match="no regular file"):
        atomic_write(tmp_path / "pipe", b"")
    assert (tmp_path / "pipe").is_fifo()
