"""One model over several processes, each of which holds a part of every weight,
its gradient and its moments (PyTorch's FSDP2).

The process that has the model puts its weights into one file that all map into memory: each rank takes its part from
there and puts it back after training, so that the host holds the weights once, however many ranks there are. A rank
gathers the weights of one block at a time, in the forward pass and again in the backward pass. Products and sums are
those of one process: float32 weights are gathered in the type in which autocast would multiply them, gradients are
added up in float32, and every rank computes its part of the batch's losses, as `part_of_mean` says.
"""

import copy
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from palimpsest.errors import PalimpsestError
from palimpsest.models.tokens import Tokens, Unit
from palimpsest.training.processes import gather_from_all, rank_and_size, sum_over_processes

MEMORY = Path("/dev/shm")


@dataclass(frozen=True)
class Published:
    """A model whose weights are in a file: the model with nothing but the shapes of its weights, and the file."""

    skeleton: Any
    file: Path


@contextmanager
def published(model: nn.Module) -> Iterator[Published]:
    """Moves the model's weights, all of one type, into a file in memory, or on disk where memory has no room for it;
    there they stay for as long as the model does, also after the file's name is gone."""
    weights = list(model.parameters())
    needed = sum(weight.numel() * weight.element_size() for weight in weights)
    with tempfile.TemporaryDirectory(dir=_roomy_folder(needed)) as folder:
        file = Path(folder) / "weights"
        for weight, view in zip(weights, _views(file, weights), strict=True):
            view.copy_(weight.detach())
            weight.data = view
        shapes = {
            id(weight): nn.Parameter(torch.empty_like(weight, device="meta"), weight.requires_grad)
            for weight in weights
        }
        yield Published(copy.deepcopy(model, shapes), file)


def _roomy_folder(needed: int) -> Path:
    folders = [folder for folder in (MEMORY, Path(tempfile.gettempdir())) if folder.is_dir()]
    for folder in folders:
        if shutil.disk_usage(folder).free > 1.1 * needed:
            return folder
    raise PalimpsestError(
        f"the weights take {needed / 1e9:.1f} GB, which neither of {', '.join(map(str, folders))} has: "
        "set TMPDIR to a folder with room."
    )


def _views(file: Path, weights: list[Any]) -> list[Tensor]:
    """The file as tensors of the weights' shapes, one after another; what is written to them is written to it."""
    sizes = [weight.numel() for weight in weights]
    whole = torch.from_file(str(file), shared=True, size=sum(sizes), dtype=weights[0].dtype)
    return [part.view(weight.shape) for part, weight in zip(whole.split(sizes), weights, strict=True)]


@contextmanager
def sharded(given: Published, products: torch.dtype) -> Iterator[nn.Module]:
    """In a rank: the model with this rank's part of the weights; on leaving without an error they are put back.

    products: the type in which autocast multiplies.
    """
    model = given.skeleton
    with torch.device("meta"):
        type(model)(model.config)  # transformers notes here, not in a copy, which outputs a class can hand over
    shapes = list(model.parameters())
    views = _views(given.file, shapes)
    gather_from_all(None)  # until all have it open
    given.file.unlink(missing_ok=True)  # so that nothing is left of it, however the processes end
    weights = {id(shape): nn.Parameter(view, shape.requires_grad) for shape, view in zip(shapes, views, strict=True)}
    for module in model.modules():
        for name, shape in module._parameters.items():
            if shape is not None:
                module._parameters[name] = weights[id(shape)]
    del weights
    _shard(model, products)
    yield model
    rank, number = rank_and_size()
    for weight, view in zip(model.parameters(), views, strict=True):
        parts = view.chunk(number)  # along the rows, as FSDP2 cuts
        if rank < len(parts):
            parts[rank].copy_(local(weight.detach()))


def _shard(model: Any, products: torch.dtype) -> None:
    """Each block of a decoder layer that multiplies is gathered by itself, and so is the output head; the rest, norms
    and embeddings, for a whole pass and in its own type, since autocast multiplies nothing by it."""
    layers = [module for module in model.modules() if type(module).__name__ in (model._no_split_modules or ())]
    if not layers:
        raise PalimpsestError(f"{type(model).__name__} does not say which its decoder layers are: use gpu=1.")
    mesh = init_device_mesh("cuda" if torch.cuda.is_available() else "cpu", (rank_and_size()[1],))
    blocks = [block for layer in layers for block in layer.children() if _multiplies(block)]
    head, embeddings = model.get_output_embeddings(), model.get_input_embeddings()
    if head.weight is not embeddings.weight:
        blocks.append(head)
    # the inputs stay as they are: autocast converts those of products alone
    multiplied = MixedPrecisionPolicy(products, reduce_dtype=torch.float32, cast_forward_inputs=False)
    for block in blocks:
        fully_shard(block, mesh=mesh, mp_policy=multiplied)
    others = MixedPrecisionPolicy(reduce_dtype=torch.float32)
    # by itself it would leave the rest gathered after a pass without gradients,
    # and the optimizer would take it for a part
    fully_shard(model, mesh=mesh, mp_policy=others, reshard_after_forward=True)


def _multiplies(module: nn.Module) -> bool:
    return any(isinstance(part, nn.Linear) for part in module.modules())


def is_sharded(model: nn.Module) -> bool:
    return isinstance(model, FSDPModule)


def local(tensor: Tensor) -> Tensor:
    """What this process holds of a tensor."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def frozen_linear(layer: nn.Linear) -> nn.Linear:
    """A copy that holds all of the weights and does not train."""
    whole = nn.Linear(layer.in_features, layer.out_features, bias=layer.bias is not None, device="meta")
    for name, weight in layer.named_parameters():
        value = weight.full_tensor().detach() if isinstance(weight, DTensor) else weight.detach()
        setattr(whole, name, nn.Parameter(value.clone(), requires_grad=False))  # of one process the whole is its part
    return whole


def part_of_mean(loss: Callable[[], Tensor], tokens: Tokens, unit: Unit, whole: int | None = None) -> Tensor:
    """This batch's part, in this process, of a mean over all batches of a step and all processes:
    the parts add up to it.

    loss: the mean over the units of which `tokens` has some; whole: how many units there are in all, None where a step
    is this batch.
    """
    if whole is None and rank_and_size()[1] == 1:
        return loss()
    here = torch.as_tensor(tokens.count(unit), device=tokens.logits.device)
    everywhere = sum_over_processes(here) if whole is None else whole
    if not here:  # nothing to add; but the others' backward pass waits for this process's
        return (tokens.logits if tokens.hidden is None else tokens.hidden)[:0].float().sum()
    return loss() * (here / everywhere)


def refuse(present: Mapping[str, bool]) -> None:
    """Raises PalimpsestError that names what is present of what sharded training does not do."""
    found = [name for name, there in present.items() if there]
    if found:
        raise PalimpsestError(
            f"on several GPUs {' and '.join(found)} cannot be had: give the job one (gpu=1). "
            "See docs/how-to/scaling.md."
        )
