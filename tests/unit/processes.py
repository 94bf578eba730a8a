"""How many processes the tests of several use: two on the CPU (gloo);
where there are GPUs (NCCL), as many as there are, at most two."""

import pytest
import torch

NUMBER = min(2, torch.cuda.device_count()) or 2
two_processes = pytest.mark.skipif(NUMBER < 2, reason="one GPU: two processes would want two")
