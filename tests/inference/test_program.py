from __future__ import annotations

import numpy as np
import pytest

from fsmde_edge.errors import DeviceError, InputError
from fsmde_edge.inference.machine import instructions, processor
from fsmde_edge.inference.program import ModelSession, Port, Program

IMAGES = Port(dtype="uint8", shape=(1, 2, 3, 3))
FOCAL = Port(dtype="float32", shape=(1,))
DEPTH = Port(dtype="float32", shape=(1, 2, 3))


class Counting(Program):
    def __init__(self, inputs=None, outputs=None):
        super().__init__(
            backend="counting",
            detail="a test's own",
            inputs={"images": IMAGES, "focal": FOCAL} if inputs is None else inputs,
            outputs={"depth": DEPTH} if outputs is None else outputs,
        )
        self.runs = self.closes = 0

    def _run(self, feeds):
        self.runs += 1
        return {"depth": np.full((1, 2, 3), self.runs, dtype=np.float32)}

    def _close(self):
        self.closes += 1


def feeds(**changes):
    right = {"images": np.zeros((1, 2, 3, 3), np.uint8), "focal": np.ones(1, np.float32)}
    return {name: value for name, value in (right | changes).items() if value is not None}


def test_a_program_runs_until_it_is_closed_once():
    program = Counting()
    assert program.run(feeds())["depth"].max() == 1
    with program:
        pass
    program.close()
    assert program.closes == 1
    with pytest.raises(DeviceError, match="counting program is closed"):
        program.run(feeds())
    assert program.runs == 1


@pytest.mark.parametrize(
    "change",
    [
        {"focal": None},
        {"other": np.zeros(1)},
        {"images": np.zeros((1, 2, 3, 3), np.int8)},
        {"images": np.zeros((1, 2, 3), np.uint8)},
        {"images": np.zeros((2, 2, 3, 3), np.uint8)},
    ],
    ids=["missing", "unknown", "dtype", "rank", "shape"],
)
def test_feeds_that_do_not_fit_never_reach_the_backend(change):
    program = Counting()
    with pytest.raises(InputError, match="the program takes"):
        program.run(feeds(**change))
    assert program.runs == 0


def test_an_open_edge_takes_any_size():
    port = Port(dtype="float32", shape=(None, 3))
    assert port.takes(np.zeros((7, 3), np.float32))
    assert not port.takes(np.zeros((7, 4), np.float32))
    assert str(port) == "float32 [?, 3]"


def test_a_session_owns_its_program():
    program = Counting()
    with ModelSession(program, precision="fp32") as session:
        assert session.infer(**feeds()).depth.max() == 1
        assert (session.shape, session.backend) == ((1, 2, 3), "counting")
    assert program.closes == 1


@pytest.mark.parametrize(
    "ports",
    [
        {"inputs": {"focal": FOCAL}},
        {"inputs": {"images": IMAGES, "focal": FOCAL, "more": FOCAL}},
        {"inputs": {"images": Port(dtype="uint8", shape=(None, 2, 3, 3)), "focal": FOCAL}},
        {"outputs": {"disparity": DEPTH}},
    ],
)
def test_a_program_of_another_contract_is_closed_and_refused(ports):
    program = Counting(**ports)
    with pytest.raises(InputError, match="not a model of our contract"):
        ModelSession(program, precision="fp32", where="here")
    assert program.closes == 1


def test_the_processor_has_a_name_and_known_instructions():
    assert processor()
    assert instructions()
