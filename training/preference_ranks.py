"""Our own step in several processes, each with a whole copy of the model: what it computes of a step, and what is added up.

Every process is dealt the same steps, computes its share of the rows and divides by the rows and tokens of all of them. So the sums
over the processes are the loss and the gradient of the step, however unlike the shares are: one may even be empty. What the charts
show is made from all rows' scores, so each process knows the figures that one alone would have found.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
import torch.distributed as dist

from data.rundir import rank
from training.preference_rows import Item
from training.preference_step import Scores
from training.ranks import processes


def share(rows: Sequence[Item]) -> list[Item]:
    """The rows of a step that are this process's: every so many, so that the long ones are shared out too."""
    return list(rows[rank() :: processes()])


def add_up(tensors: Iterable[torch.Tensor]) -> None:
    """Each tensor's sum over the processes, in its place; all must ask, with tensors of the same shapes."""
    if processes() > 1:
        for work in [dist.all_reduce(tensor, async_op=True) for tensor in tensors]:
            work.wait()


def add_up_gradients(model: torch.nn.Module) -> None:
    """The step's gradient from the shares'; a share without rows has none of its own."""
    if processes() == 1:
        return
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in trained:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    add_up(parameter.grad for parameter in trained if parameter.grad is not None)


def of_all(rows: list[Item], loss: torch.Tensor, mine: list[Item], found: Sequence[Scores]) -> tuple[list[Item], Scores]:
    """The rows of a step with their scores, from the scores `found` of those of this process, `mine`; `loss` becomes the step's."""
    if processes() == 1:
        return mine, Scores.join(found)
    place = {id(row): at for at, row in enumerate(rows)}
    columns = torch.zeros(len(Scores._fields), len(rows), len(rows[0].completions), device=loss.device)
    if mine:
        columns[:, [place[id(row)] for row in mine]] = torch.stack([column.float() for column in Scores.join(found)])
    add_up([loss, columns])
    return rows, Scores(*columns)
