"""What a library for a GPU says of its kernels, as text."""

from __future__ import annotations

import pytest

from nncc.reports.gpu import device_text, filling, least_seconds

DEVICE = {
    "architecture": "sm_80",
    "compiler": "nvcc 13.0",
    "kernels": {
        "softmax": {"calls": 1, "least_us": 5.0, "bound": "memory", "launches": [{"blocks": 4, "threads": 32}]},
        "conv": {
            "calls": 3,
            "least_us": 5.0,
            "bound": "arithmetic",
            "launches": [
                {
                    "blocks": 216, "threads": 128, "registers": 120, "shared_bytes": 32768, "spilled_bytes": 0,
                    "waves": 0.5, "occupancy": 0.25,
                },
                {
                    "blocks": 20, "threads": 128, "registers": 255, "shared_bytes": 0, "spilled_bytes": 16,
                    "waves": 0.0116, "occupancy": 0.0625,
                },
            ],
        },
    },
}  # fmt: skip


def test_each_launch_is_a_line_those_first_that_take_longest_at_least():
    assert device_text(DEVICE, {"conv": "cuda_conv2d tile 64x64, 2 parts"}) == (
        "2 kernels, 20.0 us at least by the target's facts; sm_80 code by nvcc 13.0\n"
        "\n"
        "  least   share  calls  bound       blocks  threads  waves  occupancy      "
        "        registers  shared  schedule                         kernel\n"
        "15.0 us  75.0 %      3  arithmetic     216      128   0.50       25 %      "
        "              120  32 KiB  cuda_conv2d tile 64x64, 2 parts  conv\n"
        "                                        20      128   0.01        6 %  255,"
        " 16 bytes spilled\n"
        "5.00 us  25.0 %      1  memory           4       32                        "
        "                                                            softmax\n"
    )


def test_a_kernel_fills_the_gpu_as_its_launch_of_most_threads_does():
    assert filling(DEVICE["kernels"]["conv"]) == {"waves": 0.5, "occupancy": 0.25}
    assert filling(DEVICE["kernels"]["softmax"]) == {} == filling({"launches": []})


def test_calls_follow_each_other():
    assert least_seconds(DEVICE) == pytest.approx(20e-6)
