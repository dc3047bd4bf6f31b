"""The cost of a training: floating-point operations, the share of the hardware that they use, memory, energy.

Peaks are those of dense bf16 matrix products (no sparsity), power is a board's maximum; both are NVIDIA's, from the
data sheet named with them.
"""

import resource
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:  # the table and the estimate of energy are also used without torch
    import torch

    from infill.train.batch import Batch


@dataclass(frozen=True, kw_only=True)
class Device:
    bf16_flops: float
    """Peak operations per second of dense bf16 matrix products."""
    watts: float
    """Maximum power of the board."""
    source: str


DEVICES: Final[Mapping[str, Device]] = {
    "B200": Device(bf16_flops=2.25e15, watts=1_000, source="NVIDIA Blackwell data sheet, HGX B200"),
    "H200": Device(bf16_flops=989.4e12, watts=700, source="NVIDIA H200 data sheet, SXM"),
    "H100 PCIe": Device(bf16_flops=756e12, watts=350, source="NVIDIA H100 data sheet, PCIe"),
    "H100": Device(bf16_flops=989.4e12, watts=700, source="NVIDIA H100 data sheet, SXM"),
    "A100-SXM": Device(bf16_flops=312e12, watts=400, source="NVIDIA A100 data sheet, SXM"),
    "A100": Device(bf16_flops=312e12, watts=300, source="NVIDIA A100 data sheet, 80 GB PCIe"),
    "L40S": Device(bf16_flops=362e12, watts=350, source="NVIDIA L40S data sheet"),
    "L4": Device(bf16_flops=121e12, watts=72, source="NVIDIA L4 data sheet"),
    "A10": Device(bf16_flops=125e12, watts=150, source="NVIDIA A10 data sheet"),
    "RTX 4090": Device(bf16_flops=165.2e12, watts=450, source="NVIDIA Ada architecture white paper, appendix A"),
}
"""Devices by a part of their name in CUDA; the first match counts."""

PUE: Final = 1.56
"""Energy of a data centre divided by that of its machines: mean in the Uptime Institute's Global Data Center Survey
2024."""


def find_device(name: str) -> Device | None:
    """Return the figures of the device of that name; None if they are unknown."""
    return next((device for part, device in DEVICES.items() if part in name), None)


def step_flops(model: Any, batches: Sequence["Batch"]) -> float:
    """Return the floating-point operations of a training step of the Hugging Face decoder `model` on `batches`.

    The count follows PaLM (arXiv 2204.02311, appendix B), but for the actual work: 6 per weight of the layers and used
    position, 6 per weight of the head and target (4 for frozen weights), and 12 L D per pair of positions of which one
    attends to the other (documents do not attend to each other). Padding, recomputation and the embedding's look-up do
    not count.
    """
    settings = model.config
    tied = bool(getattr(settings, "tie_word_embeddings", False))
    head = settings.vocab_size * settings.hidden_size
    sizes = [(getattr(w, "ds_numel", w.numel()), w.requires_grad) for w in model.parameters()]
    layers = sum(size for size, _ in sizes) - head * (1 if tied else 2)
    share = sum(size for size, changes in sizes if changes) / sum(size for size, _ in sizes)
    each = 4 + 2 * share  # a frozen weight has no gradient of its own
    head_width = getattr(settings, "head_dim", None) or settings.hidden_size // settings.num_attention_heads
    width = settings.num_attention_heads * head_width
    used, targets = sum(batch.used for batch in batches), sum(len(batch.targets) for batch in batches)
    pairs = sum(_pairs(batch) for batch in batches)
    return float(each * layers * used + each * head * targets + 12 * settings.num_hidden_layers * width * pairs)


def _pairs(batch: "Batch") -> float:
    """Return the number of pairs of positions of which one attends to the other, including half of each with itself."""
    spans = batch.spans[:-1] if batch.used < len(batch.ids) else batch.spans  # the last one is padding
    return sum(span.length * (span.length / 2 + span.shared) for span in spans)


def utilisation(flops_per_s: float, name: str, workers: int, *, bf16: bool) -> dict[str, float]:
    """Return `mfu`, the operations per second divided by the peak of all devices.

    Empty if the peak is unknown or the matrix products are not bf16.
    """
    device = find_device(name)
    if device is None or not bf16:
        return {}
    return {"mfu": flops_per_s / (device.bf16_flops * workers)}


def memory(device: "torch.device") -> dict[str, float]:
    """Return the peak memory so far in MB of 10^6 bytes: of this process, and of PyTorch on a GPU."""
    unit = 1 if sys.platform == "darwin" else 1_024
    peaks = {"memory_peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6, 1)}
    if device.type == "cuda":
        import torch

        peaks["device_memory_peak_mb"] = round(torch.cuda.max_memory_allocated(device) / 1e6, 1)
    return peaks


def energy_kwh(seconds: float, device: str, workers: int) -> float | None:
    """Return the maximum energy of `workers` devices and their data centre in that time; None if the power is unknown.

    Hours x processors x power x PUE (arXiv 2104.10350, section 2), with the board's maximum as power.
    """
    known = find_device(device)
    return None if known is None else seconds / 3_600 * workers * known.watts / 1_000 * PUE
