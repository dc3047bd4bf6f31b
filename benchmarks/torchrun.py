"""The peer of `benchmarks.training`'s ray_vs_torchrun: DeepSpeed's loop under torchrun, as in its tutorial.

The last line of the output is the rate of the steps after the first ten, in tokens per second over all ranks.
"""

import time

import deepspeed
import torch
import torch.distributed

from benchmarks.training import ROWS, TWO, llama, sequences


def main() -> None:
    """Train, and print the rate on rank 0."""
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # not compiled for our side either
    torch.distributed.init_process_group("gloo")
    rank, world = torch.distributed.get_rank(), torch.distributed.get_world_size()
    weights = llama()
    engine, *_ = deepspeed.initialize(
        model=weights,
        optimizer=torch.optim.AdamW(weights.parameters(), lr=1e-4),
        config={
            "train_micro_batch_size_per_gpu": ROWS // world,
            "gradient_clipping": 1.0,
            "zero_optimization": {"stage": 1},
        },
    )
    ids = torch.tensor(sequences()[rank::world])
    started = time.perf_counter()
    for step in range(TWO.steps):
        if step == TWO.log_every:
            started = time.perf_counter()
        engine.backward(engine(input_ids=ids, labels=ids, use_cache=False).loss)
        engine.step()
    seconds = time.perf_counter() - started
    if rank == 0:
        print((TWO.steps - TWO.log_every) * TWO.batch_tokens / seconds)


if __name__ == "__main__":
    main()
