from __future__ import annotations

import errno
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsmde_edge import errors
from fsmde_edge.errors import FsmdeError, MissingExtra, OutputError, writing

CODES = {
    "UsageError": 2,
    "InputError": 3,
    "BundleError": 3,
    "OutputError": 3,
    "GateFailed": 4,
    "DeviceError": 5,
    "MissingExtra": 5,
}


def tree(kind: type) -> dict[str, type]:
    found = {}
    for child in kind.__subclasses__():
        if child.__module__ == errors.__name__:
            found |= {child.__name__: child, **tree(child)}
    return found


def test_every_error_has_the_designs_exit_code():
    assert {name: kind.exit_code for name, kind in tree(FsmdeError).items()} == CODES


@given(st.text(), st.none() | st.text(), st.text())
def test_any_error_is_one_line(what, where, hint):
    line = str(FsmdeError(what, where=where, hint=hint))
    assert len(line.splitlines()) <= 1
    assert line == " ".join(line.split())


def test_an_error_says_where_what_and_what_next():
    error = FsmdeError("is broken", where="/a/b", hint="mend it")
    assert str(error) == "/a/b: is broken; mend it"
    assert str(FsmdeError("is broken")) == "is broken"


def test_a_missing_package_names_the_extra():
    line = str(MissingExtra("torch", extra="compile", why="training"))
    assert "'torch'" in line
    assert "pip install 'fsmde-edge[compile]'" in line


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.ENOTDIR, errno.EIO])
def test_refusals_to_write_are_output_errors_with_a_hint(number):
    with pytest.raises(OutputError) as caught, writing("/out"):
        raise OSError(number, os.strerror(number))
    assert os.strerror(number) in str(caught.value)
    assert caught.value.where == "/out"
    assert caught.value.hint
    assert isinstance(caught.value.__cause__, OSError)


def test_other_errors_pass_through_writing():
    with pytest.raises(ValueError, match="x"), writing("/out"):
        raise ValueError("x")
