"""What is computed beside each other: in order, on no more threads than allowed, and as it would be on one."""

import threading
import time

import pytest
import torch

from hsfuse.physics.solve import beside_each_other, one_thread


def names(count, depth=0):
    """The threads that calls ran on; each waits a little, so that another has time to begin."""

    def call():
        time.sleep(0.02)
        return [threading.current_thread().name, *(names(count, depth - 1) if depth else [])]

    return [name for each in beside_each_other(*[call] * count) for name in each]


def test_nobody_helps_unless_told():
    with one_thread():
        assert set(names(3)) == {threading.current_thread().name}


@pytest.mark.parametrize("depth", [0, 1])
def test_as_many_help_as_allowed_whatever_calls_whom(depth):
    with one_thread(beside=3):
        assert len(set(names(6, depth))) == 3
        with one_thread():
            assert len(set(names(6))) == 3
        with one_thread(beside=1):
            assert len(set(names(6))) == 1
        assert len(set(names(6))) == 3


def test_results_are_in_order_and_of_the_callers_kind():
    def call(number):
        time.sleep(0.01 * (3 - number))
        return number, torch.is_inference_mode_enabled(), torch.is_grad_enabled(), torch.get_num_threads()

    with one_thread(beside=4), torch.inference_mode():
        assert beside_each_other(*(lambda n=n: call(n) for n in range(4))) == [(n, True, False, 1) for n in range(4)]
    assert beside_each_other() == []


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("failing", [0, 1])
def test_an_error_is_raised_when_what_has_begun_is_done_and_nothing_else_begins(error, failing):
    begun, ended = [], []

    def call(number):
        begun.append(number)
        time.sleep(0.01 if number == failing else 0.05)
        if number == failing:
            raise error("no")
        ended.append(number)

    with one_thread(beside=2), pytest.raises(error, match="no"):
        beside_each_other(*(lambda n=n: call(n) for n in range(6)))
    assert (sorted(begun), ended) == ([0, 1], [1 - failing])
    with one_thread(beside=2):
        assert len(set(names(4))) == 2  # who helped may help again
