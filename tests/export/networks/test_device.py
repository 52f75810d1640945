"""Where networks run, and in which arithmetic."""

import pytest
import torch

from export.networks.device import default_device, quick, quick_at_bfloat16

PROCESSOR = torch.device("cpu")


def product() -> torch.dtype:
    """Of a multiplication in whatever context this is called in."""
    return (torch.ones(2, 2) @ torch.ones(2, 2)).dtype


@pytest.mark.parametrize(
    ("instructions", "wanted"),
    [
        ({"avx2": True, "avx512_bf16": False, "amx_bf16": False}, False),
        ({"avx512_bf16": True, "amx_bf16": False}, True),
        ({"avx512_bf16": True, "amx_bf16": True}, True),
        ({"neon": True}, False),
    ],
)
def test_a_processor_computes_in_bfloat16_where_it_has_instructions_for_it(
    instructions: dict[str, bool], wanted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: instructions)
    assert quick_at_bfloat16(PROCESSOR) is wanted
    with quick(PROCESSOR):
        assert product() is (torch.bfloat16 if wanted else torch.float32)


def test_nothing_computes_in_bfloat16_that_may_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    with quick(PROCESSOR, allowed=False):
        assert product() is torch.float32


def test_other_devices_compute_in_fp32() -> None:
    assert not quick_at_bfloat16(torch.device("mps"))


def test_this_machine_has_a_device() -> None:
    assert torch.ones(1, device=default_device()).item() == 1
