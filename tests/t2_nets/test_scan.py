"""Laws of the four-direction selective scan: its definition on a map done by hand, and backends that agree."""

import math
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache

import pytest
import torch
from scans import FORWARD, GRADIENT, inputs, relative_error, value_and_gradients

from hsfuse.core.errors import SettingError
from hsfuse.nets.scan import BACKENDS, VARIABLE, available_backends, choose_backend, mamba, scan2d, works
from hsfuse.nets.scan.reference import scan2d_reference, scan_orders

SIZES = [(1, 5, 7, 4), (3, 1, 9, 7), (1, 13, 8, 31), (2, 8, 13, 12), (3, 5, 7, 64), (1, 2, 3, 128)]
CPU_BACKENDS = [name for name in available_backends("cpu") if name != "reference"]


def output_weight(arguments):
    return torch.randn(arguments[0].shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@cache
def reference(*size):
    """Of `inputs(*size)`, once for all backends."""
    arguments = inputs(*size)
    return value_and_gradients(scan2d_reference, arguments, output_weight(arguments), torch.float64)


def assert_agrees(scan, arguments, truth, device="cpu"):
    weight = output_weight(arguments)
    moved = [x.to(device) for x in arguments]
    result = [x.cpu() for x in value_and_gradients(scan, moved, weight.to(device), torch.float32)]
    assert relative_error(result[0], truth[0]) <= FORWARD
    assert max(relative_error(a, b) for a, b in zip(result[1:], truth[1:], strict=True)) <= GRADIENT


def test_orders_are_rows_columns_and_both_reversed():
    assert scan_orders(2, 3).tolist() == [
        [0, 1, 2, 3, 4, 5],
        [0, 3, 1, 4, 2, 5],
        [5, 4, 3, 2, 1, 0],
        [5, 2, 4, 1, 3, 0],
    ]


@pytest.mark.parametrize("name", ["reference", *CPU_BACKENDS])
def test_three_pixels_by_hand(name):
    """One channel, one state, dt = ln 2, A = -1 (decay 1/2), C = 1; on one row, columns are rows."""
    u = torch.tensor([1.0, 2.0, 4.0]).view(1, 1, 3, 1)
    proj = torch.zeros(1, 1, 3, 4, 3)
    proj[..., 1], proj[..., 2] = 1 / math.log(2), 1.0
    zeros = torch.zeros(4, 1, 1)
    skip = torch.tensor([[0.1], [0.2], [0.3], [0.4]])
    y = BACKENDS[name].scan(u, proj, zeros, zeros[..., 0], zeros, skip)
    forward, backward = [1.0, 2.5, 5.25], [3.0, 4.0, 4.0]
    wanted = [2 * f + 2 * b + v for f, b, v in zip(forward, backward, [1.0, 2.0, 4.0], strict=True)]
    torch.testing.assert_close(y.flatten(), torch.tensor(wanted))


@pytest.mark.parametrize("name", CPU_BACKENDS)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_backend_agrees_with_the_reference(name, size):
    assert_agrees(BACKENDS[name].scan, inputs(*size), reference(*size))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU here")
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_gpu_backends_agree_with_the_reference(size):
    for name in available_backends("cuda"):
        assert_agrees(BACKENDS[name].scan, inputs(*size), reference(*size), "cuda")


@pytest.mark.parametrize("name", CPU_BACKENDS)
def test_large_and_tiny_steps_stay_exact(name):
    u, proj, weight, _, decay, skip = inputs(1, 6, 7, 16)
    bias = torch.linspace(-15, 60, 32, dtype=torch.float64).repeat(4, 1)
    arguments = (u, proj, weight, bias, decay, skip)
    truth = value_and_gradients(scan2d_reference, arguments, output_weight(arguments), torch.float64)
    assert_agrees(BACKENDS[name].scan, arguments, truth)


@pytest.mark.parametrize("name", CPU_BACKENDS)
def test_long_map_on_several_threads(name):
    """Enough work to be shared between threads, and many chunks whose states have to be chained."""
    size = (2, 13, 21, 18)
    assert_agrees(BACKENDS[name].scan, inputs(*size), reference(*size))


@pytest.mark.parametrize("name", CPU_BACKENDS)
def test_images_of_a_batch_are_independent(name):
    u, proj, *parameters = (x.float() for x in inputs(3, 9, 10, 20))
    together = BACKENDS[name].scan(u, proj, *parameters)
    for i in range(3):
        alone = BACKENDS[name].scan(u[i : i + 1], proj[i : i + 1], *parameters)
        torch.testing.assert_close(alone[0], together[i])


@pytest.mark.parametrize("name", CPU_BACKENDS)
def test_noncontiguous_inputs(name):
    u, proj, *parameters = (x.float() for x in inputs(2, 6, 5, 9))
    wanted = BACKENDS[name].scan(u, proj, *parameters)
    turned = u.transpose(1, 2).contiguous().transpose(1, 2)
    torch.testing.assert_close(BACKENDS[name].scan(turned, proj, *parameters), wanted)


@pytest.mark.skipif("cpu" not in CPU_BACKENDS, reason="Numba is not installed")
def test_any_number_of_threads_gives_the_same_bits():
    from hsfuse.nets.scan.cpu import scan2d_cpu

    arguments = inputs(3, 16, 17, 24)
    weight = torch.ones(arguments[0].shape)
    before = torch.get_num_threads()
    results = []
    for threads in (1, 2, 5):
        torch.set_num_threads(threads)
        results.append(value_and_gradients(scan2d_cpu, arguments, weight, torch.float32))
    torch.set_num_threads(before)
    for result in results[1:]:
        assert torch.equal(
            result[0], results[0][0]
        )  # each pixel's sum is one thread's, in one order: a law of the kernel
        for a, b in zip(result[1:], results[0][1:], strict=True):
            torch.testing.assert_close(a, b)


@pytest.mark.skipif("cpu" not in CPU_BACKENDS, reason="Numba is not installed")
def test_scans_from_several_threads_at_once():
    from hsfuse.nets.scan.cpu import scan2d_cpu

    arguments = [x.float() for x in inputs(2, 16, 17, 24)]
    wanted = scan2d_cpu(*arguments)
    with ThreadPoolExecutor(4) as pool:
        for result in pool.map(lambda _: scan2d_cpu(*arguments), range(12)):
            assert torch.equal(result, wanted)


@pytest.mark.skipif("cpu" not in CPU_BACKENDS, reason="Numba is not installed")
def test_kernels_compile_where_no_cache_can_be_written(monkeypatch):
    import numba

    from hsfuse.nets.scan.kernels import compiled

    njit = numba.njit

    def refusing(function, cache=False, **options):
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return njit(function, **options)

    monkeypatch.setattr(numba, "njit", refusing)
    assert compiled(lambda x: x + 1)(2) == 3


def test_chunked_gradcheck():
    arguments = [x.requires_grad_() for x in inputs(1, 2, 3, 2)]
    assert torch.autograd.gradcheck(BACKENDS["chunked"].scan, arguments, fast_mode=True)  # along random directions


def test_transposed_map_swaps_rows_and_columns():
    u, proj, *parameters = inputs(1, 4, 6, 5)
    swap = [1, 0, 3, 2]
    turned = scan2d_reference(u.transpose(1, 2), proj.transpose(1, 2)[..., swap, :], *(x[swap] for x in parameters))
    torch.testing.assert_close(turned.transpose(1, 2), scan2d_reference(u, proj, *parameters))


def test_float64_stays_float64():
    arguments = inputs(1, 4, 5, 6)
    assert relative_error(scan2d(*arguments), scan2d_reference(*arguments)) < 1e-13


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_scanned_in_float32(dtype):
    u, proj, *parameters = (x.float() for x in inputs(1, 4, 5, 6))
    u, proj = u.to(dtype), proj.to(dtype)
    result = scan2d(u, proj, *parameters)
    assert result.dtype == dtype
    torch.testing.assert_close(result, scan2d(u.float(), proj.float(), *parameters).to(dtype))


@pytest.mark.parametrize("name", ["reference", *CPU_BACKENDS])
def test_environment_forces_a_backend(monkeypatch, name):
    monkeypatch.setenv(VARIABLE, name)
    assert choose_backend("cpu") == name
    arguments = [x.float() for x in inputs(1, 3, 4, 4)]
    assert torch.equal(scan2d(*arguments), BACKENDS[name].scan(*arguments))


def test_best_available_is_chosen(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    assert choose_backend("cpu") == available_backends("cpu")[0] == CPU_BACKENDS[0]


def test_without_numba_chunked_takes_over(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setitem(sys.modules, "numba", None)
    for name in ("cpu", "kernels", "lanes", "functions", "forward", "backward"):
        monkeypatch.delitem(sys.modules, f"hsfuse.nets.scan.{name}", raising=False)
    works.cache_clear()
    assert choose_backend("cpu") == "chunked"
    works.cache_clear()


def test_a_package_that_is_installed_but_broken_is_no_backend_and_says_why(monkeypatch, tmp_path, caplog):
    package = tmp_path / "mamba_ssm" / "ops"
    package.mkdir(parents=True)
    (tmp_path / "mamba_ssm" / "__init__.py").touch()
    (package / "__init__.py").touch()
    (package / "selective_scan_interface.py").write_text("raise OSError('undefined symbol: x\\nmore')")
    monkeypatch.syspath_prepend(tmp_path)
    works.cache_clear()
    with caplog.at_level("DEBUG", "hsfuse"):
        assert not any(mamba.available(torch.device("cuda")) for _ in range(2))
    works.cache_clear()
    told = [record.message for record in caplog.records]
    assert told == ["mamba_ssm.ops.selective_scan_interface can't be used: OSError: undefined symbol: x"]


@pytest.mark.parametrize("name", CPU_BACKENDS)
def test_autocast_leaves_the_scan_in_float32(name, monkeypatch):
    seen = []

    def spy(*arguments):
        product = torch.ones(2, 2) @ torch.ones(2, 2)
        seen.extend([x.dtype for x in (*arguments, product)])
        return plain(*arguments)

    plain = BACKENDS[name].scan
    monkeypatch.setitem(BACKENDS, name, replace(BACKENDS[name], scan=spy))
    monkeypatch.setenv(VARIABLE, name)
    arguments = [x.float() for x in inputs(1, 3, 4, 4)]
    whole = scan2d(*arguments)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(scan2d(*arguments), whole)
        half = scan2d(*(x.bfloat16() for x in arguments))
    assert half.dtype == torch.bfloat16
    assert set(seen) == {torch.float32}


def test_unknown_backend_is_refused_with_the_names(monkeypatch):
    monkeypatch.setenv(VARIABLE, "warp")
    with pytest.raises(SettingError, match=r"warp.*mamba, cpu, triton, chunked"):
        choose_backend("cpu")


def test_unusable_backend_is_refused(monkeypatch):
    monkeypatch.setenv(VARIABLE, "mamba")
    with pytest.raises(SettingError, match="cpu, chunked, reference"):
        choose_backend("cpu")
