"""Teacher outputs on disk: asked for once, never half-written, never trusted when broken."""

from __future__ import annotations

import hashlib
import os
import pickle
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fsmde_edge.distill.teachers.base import TeacherOutput
from fsmde_edge.distill.teachers.cache import (
    TeacherCache,
    _body,
    _decode,
    _encode,
    default_root,
    picture_hash,
)
from fsmde_edge.distill.teachers.load import load_teacher
from fsmde_edge.distill.teachers.recipe import TeacherRecipe
from fsmde_edge.errors import InputError, OutputError

HEIGHT, WIDTH = 32, 64


class Counting:
    """A teacher of arithmetic alone that remembers what it was asked.

    Args:
        kind: another teacher for each text.
        features: how many; the more, the larger the files.
        bad: a grey level about which it has nothing finite to say.
    """

    parameters = 0

    def __init__(self, kind="a", features=3, bad=None):
        self.name = f"counting-{kind}"
        self.fingerprint = hashlib.sha256(kind.encode()).hexdigest()
        self.features = features
        self.bad = bad
        self.asked = []

    def __call__(self, pictures):
        self.asked.append(len(pictures))
        noise = torch.Generator().manual_seed(0)
        height, width = pictures.shape[-2:]
        features = torch.randn(len(pictures), self.features, height // 4, width // 4, generator=noise)
        disparity = pictures.mean(1) / 255
        disparity[pictures[:, 0, 0, 0] == self.bad] = 1e6
        return TeacherOutput(disparity, features)


def pictures(count=7, height=HEIGHT, width=WIDTH, seed=0):
    rng = np.random.default_rng(seed)
    return list(rng.integers(0, 256, (count, height, width, 3), dtype=np.uint8))


def cache_of(teacher, root):
    return TeacherCache(root, teacher.fingerprint)


def files(root):
    """Visible files below a folder and what they hold."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and not path.name.startswith(".")
    }


# What is kept


def test_what_is_read_is_what_the_teacher_said_in_half_precision(tmp_path):
    teacher = Counting()
    cache = cache_of(teacher, tmp_path)
    shown = pictures(5)
    names = cache.fill(shown, teacher, batch=5)
    said = teacher(torch.from_numpy(np.stack(shown)).permute(0, 3, 1, 2).float())
    kept = cache.read(names)
    assert kept.disparity.dtype == kept.features.dtype == torch.float32
    torch.testing.assert_close(kept.disparity, said.disparity.half().float(), rtol=0, atol=0)
    torch.testing.assert_close(kept.features, said.features.half().float(), rtol=0, atol=0)
    backwards = cache.read(names[::-1])
    assert torch.equal(backwards.disparity, kept.disparity.flip(0))
    assert names == [picture_hash(picture) for picture in shown]


halves = hnp.arrays(np.float16, hnp.array_shapes(min_dims=2, max_dims=2, max_side=9))
stacks = hnp.arrays(np.float16, hnp.array_shapes(min_dims=3, max_dims=3, max_side=5))


@given(halves, stacks)
def test_a_file_holds_every_bit_of_both_maps(disparity, features):
    data = _encode(disparity, features)
    body = _body(data)
    assert body is not None
    for kept, given_ in zip(_decode(body), (disparity, features), strict=True):
        assert kept.shape == given_.shape
        assert kept.tobytes() == given_.tobytes()


@given(st.data())
def test_no_change_of_a_file_goes_unnoticed(data):
    whole = _encode(np.ones((3, 4), np.float16), np.ones((2, 1, 1), np.float16))
    spoilt = bytearray(whole)
    spoilt[data.draw(st.integers(0, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
    assert _body(bytes(spoilt)) is None
    assert _body(whole[: data.draw(st.integers(0, len(whole) - 1))]) is None
    assert _body(whole + b"\0") is None


def test_a_picture_is_known_by_its_size_and_bytes():
    picture = pictures(1)[0]
    other = picture.copy()
    other[3, 2, 1] ^= 1
    names = {picture_hash(picture), picture_hash(other), picture_hash(picture.reshape(WIDTH, HEIGHT, 3))}
    assert len(names) == 3
    assert picture_hash(np.asfortranarray(picture)) == picture_hash(picture)
    assert picture_hash(np.flip(np.flip(picture, 1).copy(), 1)) == picture_hash(picture)


def test_the_cache_has_a_place_among_the_users_caches(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_root() == tmp_path / "fsmde-edge" / "teachers"


def test_reading_needs_no_teacher(tmp_path):
    teacher = Counting()
    cache = cache_of(teacher, tmp_path)
    names = cache.fill(pictures(), teacher)
    sent = pickle.loads(pickle.dumps(cache))  # as to a process that loads data
    assert torch.equal(sent.read(names).features, cache.read(names).features)


# What the teacher is asked


def test_the_teacher_is_asked_once(tmp_path):
    teacher = Counting()
    cache = cache_of(teacher, tmp_path)
    names = cache.fill(iter(pictures()), teacher, batch=3)
    assert teacher.asked == [3, 3, 1]
    before = files(tmp_path)
    assert cache.fill(pictures(), teacher, batch=3) == names
    assert teacher.asked == [3, 3, 1]
    assert files(tmp_path) == before


def test_only_batches_that_lack_something_are_asked_for_again(tmp_path):
    teacher = Counting()
    cache = cache_of(teacher, tmp_path)
    names = cache.fill(pictures(), teacher, batch=3)
    before = files(tmp_path)
    cache._path(names[4]).unlink()
    kept = cache._path(names[3]).stat().st_ino
    teacher.asked.clear()
    cache.fill(pictures(), teacher, batch=3)
    assert teacher.asked == [3]
    assert files(tmp_path) == before
    assert cache._path(names[3]).stat().st_ino == kept


def test_pictures_of_several_sizes_are_asked_about_apart(tmp_path):
    teacher = Counting()
    cache = cache_of(teacher, tmp_path)
    shown = pictures(4) + pictures(2, 64, 32) + pictures(1)
    names = cache.fill(shown, teacher, batch=3)
    assert teacher.asked == [3, 1, 2]  # the last is the first again
    assert names[-1] == names[0]
    assert cache.read(names[4:6]).disparity.shape == (2, 64, 32)


def test_teachers_are_kept_apart(tmp_path):
    one, other = Counting("one"), Counting("other", features=5)
    (name,) = cache_of(one, tmp_path).fill(pictures(1), one)
    assert not cache_of(other, tmp_path).holds(name)
    cache_of(other, tmp_path).fill(pictures(1), other)
    assert cache_of(one, tmp_path).read([name]).features.shape[1] == 3
    assert cache_of(other, tmp_path).read([name]).features.shape[1] == 5
    with pytest.raises(ValueError, match="another teacher's, not counting-other's"):
        cache_of(one, tmp_path).fill(pictures(1), other)


def test_what_is_not_finite_is_not_kept_and_its_picture_is_named(tmp_path):
    shown = pictures(5)
    for picture in shown:
        picture[0, 0, 0] = 1
    shown[3][0, 0, 0] = 2
    teacher = Counting(bad=2)
    cache = cache_of(teacher, tmp_path)
    with pytest.raises(InputError, match=r"picture 3, sha256 .*: teacher counting-a says what is not finite"):
        cache.fill(shown, teacher, batch=2)
    assert [cache.holds(picture_hash(picture)) for picture in shown] == [True, True, True, False, False]


# Broken files


@pytest.mark.parametrize(
    "spoil",
    [
        lambda whole: b"",
        lambda whole: b"garbage",
        lambda whole: whole[: len(whole) // 2],
        lambda whole: whole[:-1],
        lambda whole: whole[:100] + bytes([whole[100] ^ 1]) + whole[101:],
        lambda whole: b"FSMDETE0" + whole[8:],
    ],
    ids=["empty", "garbage", "half", "short", "bit", "older"],
)
def test_a_broken_file_is_not_read_and_made_again(tmp_path, spoil):
    teacher = Counting()
    cache = cache_of(teacher, tmp_path)
    names = cache.fill(pictures(), teacher)
    before = files(tmp_path)
    path = cache._path(names[2])
    path.write_bytes(spoil(path.read_bytes()))
    assert not cache.holds(names[2])
    with pytest.raises(InputError, match=rf"^{path}: is a broken file.*run again"):
        cache.read(names)
    cache.fill(pictures(), teacher)
    assert files(tmp_path) == before


def test_an_output_that_is_missing_is_named(tmp_path):
    cache = cache_of(Counting(), tmp_path)
    with pytest.raises(InputError, match=r"cannot be read \(No such file or directory\); run again"):
        cache.read([picture_hash(pictures(1)[0])])


# Disks


def test_a_full_disk_is_one_line_and_leaves_whole_files(tiny_disk):
    teacher = Counting(features=100)
    cache = cache_of(teacher, tiny_disk)
    with pytest.raises(OutputError, match=r"cannot be written \(No space left.*free some space"):
        cache.fill(pictures(40), teacher)
    found = files(tiny_disk)
    assert 0 < len(found) < 40
    assert all(cache.holds(Path(name).name) for name in found)


def test_a_folder_that_refuses_is_one_line(read_only_folder):
    with pytest.raises(OutputError, match="cannot be written"):
        cache_of(Counting(), read_only_folder / "teachers").fill(pictures(), Counting())


# Processes


def own_teacher(checkpoint):
    """A real network: its last bits depend on the batch."""
    return load_teacher(TeacherRecipe(kind="own", source=str(checkpoint)), torch.device("cpu"))


def child(checkpoint, root, before=""):
    """A process that fills a cache; `before` runs first and sees `teacher` and `die`."""
    script = f"""
        import os, signal, sys
        from pathlib import Path
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from test_teacher_cache import cache_of, own_teacher, pictures
        teacher = own_teacher({str(checkpoint)!r})
        die = lambda: os.kill(os.getpid(), signal.SIGKILL)
        {before}
        cache_of(teacher, Path({str(root)!r})).fill(pictures(11), teacher, batch=4)
    """
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], env=environment)


DIE_ASKING = """
        kind, calls = type(teacher), []
        tell = kind.__call__
        kind.__call__ = lambda *a: calls.append(1) or (len(calls) > 2 and die()) or tell(*a)
"""
DIE_WRITING = """
        replace, calls = Path.replace, []
        Path.replace = lambda *a: calls.append(1) or (len(calls) > 6 and die()) or replace(*a)
"""


@pytest.fixture(scope="module")
def unbroken(small_checkpoint, tmp_path_factory):
    """What one process makes that nobody kills."""
    root = tmp_path_factory.mktemp("unbroken")
    assert child(small_checkpoint, root).wait() == 0
    assert len(files(root)) == 11
    return files(root)


@pytest.mark.parametrize(("before", "kept"), [(DIE_ASKING, 8), (DIE_WRITING, 6)], ids=["asking", "writing"])
def test_a_killed_fill_loses_at_most_a_batch_and_ends_in_the_same_bytes(
    small_checkpoint, unbroken, tmp_path, before, kept
):
    assert child(small_checkpoint, tmp_path, before).wait() == -signal.SIGKILL
    stopped = files(tmp_path)
    assert len(stopped) == kept
    assert stopped.items() <= unbroken.items()
    assert child(small_checkpoint, tmp_path).wait() == 0
    assert files(tmp_path) == unbroken


def test_two_processes_fill_one_cache(small_checkpoint, unbroken, tmp_path):
    both = [child(small_checkpoint, tmp_path) for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    assert files(tmp_path) == unbroken
    assert not list(tmp_path.rglob(".tmp-*"))
