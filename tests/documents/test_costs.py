"""What pages say of large models is read from the outputs in docs/evidence, or derived from sizes that training has."""

import pytest
import torch

import costs
from palimpsest.training.storage import WEIGHT_STORAGE


def test_measured_speeds_are_those_of_the_outputs():
    """Numbers of docs/evidence/training-beside-transformers.txt, training-7b-2gpus.txt and evaluation-7b.txt."""
    assert costs.training("ga_gdr", "ours") == {"tokens": 12883, "ms": 636, "mfu": 53.7, "peak": 71.6}
    assert costs.training("npo_klr", "plain") == {"tokens": 6068, "ms": 1350, "mfu": 25.3, "peak": 69.5}
    assert costs.sharded()["npo_klr"] == {"tokens": 12839, "ms": 1276, "mfu": 26.8, "peak": 38.0}
    assert costs.evaluation()["all"] == (31.6, 451.0)
    assert costs.evaluation("--batch-size 100 --plain 2")["all"] == (21.6, 521.7)
    assert (costs.gain("throughput-1b-2gpus.txt"), costs.gain("throughput-1b-2gpus.txt", 4)) == ("2.1", "1.8")
    assert costs.paper_hours("evaluation") == pytest.approx(10 * 7 * 31.6 / 3600)
    forget, retained = 2 * 10, 4 * 20 + 2 * 10  # passes without and with a retain loss
    assert costs.paper_hours("unlearning") == pytest.approx((forget + retained) * 408 * 2048 / 12883 / 3600)


@pytest.mark.parametrize(("weights", "optimizer"), costs.BYTES)
def test_bytes_a_weight_are_those_of_a_step(weights, optimizer):
    """Weight, gradient and moments of a matrix after one step of the real optimizer, on the CPU."""
    storage = WEIGHT_STORAGE[weights]
    kind, settings = storage.optimizers[optimizer](1e-3, 0.0, 0)
    size = 1 << 16
    matrix = torch.nn.Parameter(torch.ones(size // 256, 256, dtype=storage.dtype))
    matrix.grad = torch.ones_like(matrix)
    updater = kind([matrix], **settings)
    updater.step()
    moments = [v for v in updater.state[matrix].values() if isinstance(v, torch.Tensor) and v.numel() == size]
    found = [matrix, matrix.grad, *moments]
    weight, gradient, kept = costs.BYTES[weights, optimizer]
    assert [tensor.element_size() for tensor in found[:2]] == [weight, gradient]
    assert sum(tensor.element_size() for tensor in moments) == kept and len(moments) == 2
