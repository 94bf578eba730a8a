"""Several processes for one job: what they exchange, how many there are, one error message where one of them fails."""

import errno
import os
from pathlib import Path

import pytest
import torch
from processes import two_processes

from palimpsest.errors import PalimpsestError
from palimpsest.training import processes as ranks
from palimpsest.training.processes import gather_from_all, rank_and_size, run_on_ranks, sum_over_processes
from palimpsest.training.storage import Float32MomentsAdamW

pytestmark = pytest.mark.usefixtures("all_forks")


def work_alone():
    """A step of the same weights with the same gradient in each process."""
    weight = torch.nn.Parameter(torch.ones(1000, dtype=torch.bfloat16))
    weight.grad = torch.ones_like(weight)
    Float32MomentsAdamW([weight], lr=1e-3, seed=5).step()
    return gather_from_all(weight.detach().float()), gather_from_all(
        sum_over_processes(torch.tensor(0.1 * (1 + rank_and_size()[0]))).item()
    )


def refuse_in_rank_1():
    if rank_and_size()[0] == 1:
        raise PalimpsestError("rank 1 says no")
    sum_over_processes(torch.zeros(1))


def refuse_without_hard_links():
    def refuse(*_):
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    os.link = refuse
    refuse_in_rank_1()


def refuse_where_nothing_can_be_written():
    def refuse(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    Path.mkdir = refuse
    if rank_and_size()[0] == 1:
        raise ValueError("rank 1 found no room")
    sum_over_processes(torch.zeros(1))


def end_in_rank_1():
    if rank_and_size()[0] == 1:
        os.kill(os.getpid(), 9)
    sum_over_processes(torch.zeros(1))


@two_processes
def test_processes_round_with_numbers_of_their_own_and_sum_alike():
    (first, second), sums = run_on_ranks(2, work_alone)
    assert set(first.tolist()) == set(second.tolist()) == {1.0, 1 - 2**-8}
    assert not torch.equal(first, second)
    assert sums[0] == sums[1] == pytest.approx(0.3)


@two_processes
def test_the_error_of_one_process_is_raised_once_and_the_others_are_ended():
    with pytest.raises(PalimpsestError, match=r"^rank 1 says no") as caught:
        run_on_ranks(2, refuse_in_rank_1)
    assert str(caught.value) == "rank 1 says no"
    (story,) = caught.value.__notes__
    assert story.startswith("In process 1 of 2:") and "refuse_in_rank_1" in story
    with pytest.raises(PalimpsestError, match="process 1 of 2 was ended by signal 9: was memory short"):
        run_on_ranks(2, end_in_rank_1)


@two_processes
def test_the_error_comes_from_a_file_system_without_hard_links():
    with pytest.raises(PalimpsestError, match=r"^rank 1 says no"):
        run_on_ranks(2, refuse_without_hard_links)


@two_processes
def test_an_error_that_cannot_be_written_down_is_printed(capfd):
    with pytest.raises(RuntimeError, match="see what they said"):
        run_on_ranks(2, refuse_where_nothing_can_be_written)
    assert "ValueError: rank 1 found no room" in capfd.readouterr().err


@pytest.mark.parametrize(("visible", "given", "processes"), [(0, 2, 1), (0, 0, 1), (1, 1, 1), (2, 2, 2), (4, 0, 1)])
def test_a_job_works_in_a_process_for_each_gpu_or_in_one_on_the_cpu(monkeypatch, visible, given, processes):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: visible)
    assert ranks.processes_of(given) == processes


def test_fewer_gpus_than_the_step_was_given_are_an_error(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(PalimpsestError, match=r"given 4 GPUs \(gpu=4\), and torch sees 1 .* resource nodes=1"):
        ranks.processes_of(4)
