"""The Triton kernels against the float64 reference, on the CPU by Triton's interpreter, in a process of its own.

The interpreter has to be asked for before Triton is imported, and is slow: maps are tiny, and the sizes of tiles and
chunks are changed so that every loop still turns more than once.
"""

import json
import os
import subprocess
import sys
from importlib.util import find_spec

import pytest
import torch
from scans import FORWARD, GRADIENT, inputs, relative_error, value_and_gradients

from hsfuse.nets.scan import available_backends
from hsfuse.nets.scan.reference import scan2d_reference

#: Map and channels, and sizes other than the module's.
CASES = {
    "three blocks of channels": ((1, 1, 2, 6), {"CHANNELS": 4}),
    "a batch, chunks that neither run nor are chained at once": (
        (2, 2, 3, 2), {"SHORTEST": 4, "PROGRAMS": 2, "CHAIN": {"ROWS": 1, "BLOCK": 8}}
    ),
}  # fmt: skip
pytestmark = pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")


@pytest.fixture(scope="module")
def errors():
    environment = os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, __file__]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


@pytest.mark.parametrize("case", CASES)
def test_triton_agrees_with_the_reference(errors, case):
    forward, *gradients = errors[case]
    assert forward <= FORWARD
    assert len(gradients) == 6
    assert max(gradients) <= GRADIENT


def test_the_interpreter_is_never_chosen_by_itself(errors):
    assert errors["backends"].index("cpu" if find_spec("numba") else "triton") == 0


def test_without_a_gpu_triton_is_no_choice():
    assert "triton" not in available_backends("cpu")


def _case(size, changes):
    from hsfuse.nets.scan import triton

    before = {name: getattr(triton, name) for name in changes}
    for name, value in changes.items():
        setattr(triton, name, value)
    arguments = inputs(*size)
    weight = torch.randn(arguments[0].shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    truth = value_and_gradients(scan2d_reference, arguments, weight, torch.float64)
    result = value_and_gradients(triton.scan2d_triton, arguments, weight, torch.float32)
    for name, value in before.items():
        setattr(triton, name, value)
    return [relative_error(a, b) for a, b in zip(result, truth, strict=True)]


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps({name: _case(*case) for name, case in CASES.items()} | {"backends": available_backends("cpu")}))
