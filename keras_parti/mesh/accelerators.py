"""What vendors publish of accelerators: the figures that a plan is made from."""

from typing import NamedTuple


class Accelerator(NamedTuple):
    """One row: the peak figures of one device, as its vendor publishes them."""

    flops: float  # bfloat16 operations a second
    memory: float  # bytes
    bandwidth: float  # bytes a second, of that memory
    link: float  # bytes a second that it sends to others, over all its links
    source: str


_TPU = "docs.cloud.google.com/tpu/docs"

# fmt: off
ACCELERATORS = {
    #                          flops    memory        bandwidth  link      source
    # The link is what the published all-reduce bandwidth of a pod, 1.1 PB/s, leaves for
    # each of its 4096 chips; of the other TPUs, half the published bandwidth both ways.
    "tpu_v4":    Accelerator(275e12, 32 * 2**30,   1200e9,   1.1e15 / 4096, f"{_TPU}/v4"),
    "tpu_v5e":   Accelerator(197e12, 16e9,          819e9,   200e9,         f"{_TPU}/v5e"),
    "tpu_v5p":   Accelerator(459e12, 95e9,         2765e9,   600e9,         f"{_TPU}/v5p"),
    # Within the eight of a machine; between machines it is what the network gives.
    "a100_80gb": Accelerator(312e12, 80e9,         2039e9,   300e9,         "NVIDIA A100 datasheet, SXM"),
    "h100":      Accelerator(989.5e12, 80e9,       3350e9,   450e9,         "NVIDIA H100 datasheet, SXM, without sparsity"),
}
# fmt: on
