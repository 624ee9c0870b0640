"""A device that cannot be there is refused with the list of those that can."""

from __future__ import annotations

from pathlib import Path

import pytest

from imagedbd.devices import check_device, has_gpu
from imagedbd.errors import ConfigError


def machine(folder: Path, *names: str) -> str:
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    return str(folder)


@pytest.mark.parametrize(
    ("files", "device", "dtype"),
    [
        ((), "auto", "auto"),
        ((), "cpu", "bf16"),
        (("nvidia0", "nvidia1", "nvidiactl"), "cuda:1", "fp16"),
        (("nvidia0",), "auto", "fp16"),
        (("kfd",), "cuda:3", "bf16"),
        (("dri/renderD128",), "xpu", "auto"),
        (("dxg",), "cuda", "auto"),
        (("kfd", "dri/renderD128"), "cuda", "fp16"),
    ],
)
def test_what_may_be_there_is_accepted(
    tmp_path: Path, files: tuple[str, ...], device: str, dtype: str
) -> None:
    dev = machine(tmp_path, *files)
    check_device(device, dtype, dev)
    assert has_gpu(dev) == bool(files)


@pytest.mark.parametrize(
    ("files", "device", "dtype", "there"),
    [
        ((), "cuda", "auto", "There are: cpu."),
        ((), "mps", "auto", "There are: cpu."),
        (("nvidia0", "nvidia1", "nvidiactl"), "cuda:2", "auto", "There are: cpu, cuda:0, cuda:1."),
        (("nvidia0",), "xpu:0", "auto", "There are: cpu, cuda:0."),
        (("dri/renderD128",), "cuda", "auto", "There are: cpu, xpu."),
        (("nvidia0",), "cpu", "fp16", "There are: fp32, bf16."),
        ((), "auto", "fp16", "There are: fp32, bf16."),
    ],
)
def test_what_cannot_be_there_is_refused(
    tmp_path: Path, files: tuple[str, ...], device: str, dtype: str, there: str
) -> None:
    dev = machine(tmp_path, *files)
    with pytest.raises(ConfigError) as refusal:
        check_device(device, dtype, dev)
    assert there in refusal.value.message
