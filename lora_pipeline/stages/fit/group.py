"""The processes that train one LoRA together, each on a device of its own. Who they are and how they reach each other is accelerate's."""

import os
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from lora_pipeline.errors import TrainingError
from lora_pipeline.settings import FitSettings

if TYPE_CHECKING:
    from torch import Tensor

# While the leader saves, draws and judges an epoch, the others wait at the next sum; torch's own 10 minutes could be too few. When
# one has died, nobody waits so long: the launcher ends all.
_WAITS_FOR_THE_LEADER = timedelta(hours=2)


@dataclass(frozen=True)
class Group:
    """This process's place in its group; unless told otherwise it is alone, and accelerate is not imported.

    Args:
        rank: its number, from 0.
        size: how many there are.
    """

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this is the one that writes files and reports."""
        return self.rank == 0

    def sum(self, numbers: "Tensor") -> "Tensor":
        """The sum over the group of a tensor that has one shape in all of them. Waits until all have come here."""
        if self.size == 1:
            return numbers
        from accelerate.utils import reduce

        return reduce(numbers, "sum")  # type: ignore[return-value]  # a tensor for a tensor

    def total(self, number: float) -> float:
        """As `sum`, of a number."""
        if self.size == 1:
            return number
        import torch
        from accelerate import PartialState

        return float(self.sum(torch.tensor(number, dtype=torch.float64, device=PartialState().device)))

    def leave(self) -> None:
        """Close the connections, when all is done."""
        if self.size > 1:
            from accelerate import PartialState

            PartialState().destroy_process_group()


def joined(settings: FitSettings, device: str) -> Group:
    """The group that `accelerate launch` started this process in, connected (NCCL between graphics cards, gloo between CPUs); or alone.

    Args:
        settings: how many processes there should be.
        device: of this process: "cuda", "mps" or "cpu". On "cuda", torch's current device becomes the process's own card.

    Raises:
        TrainingError: other than that many were started, or this machine's processes have too few cards.
    """
    wanted = settings.num_processes
    if wanted == 1:
        return Group()
    # torchrun's variables, which accelerate reads too
    started, here = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if started != wanted:
        raise TrainingError(
            f"fit.num_processes is {wanted}, and {started} were started: it counts those of all machines, and accelerate's own configuration "
            "says how many machines there are (num_machines), which must divide it"
        )
    if device not in {"cuda", "cpu"}:
        raise TrainingError(f"fit.num_processes is {wanted}, and this machine has one device ({device}): set it to 1")
    if device == "cuda":
        import torch

        cards = torch.cuda.device_count()
        if here > cards:
            raise TrainingError(
                f"fit.num_processes puts {here} processes on this machine, which has {cards} graphics card(s), and each needs its own: "
                "lower it, and raise fit.gradient_accumulation_steps as many times for steps of as many pictures"
            )
    from accelerate import PartialState

    state = PartialState(cpu=device == "cpu", timeout=_WAITS_FOR_THE_LEADER)
    return Group(state.process_index, state.num_processes)
