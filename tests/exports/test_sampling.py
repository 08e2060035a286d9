"""Two ways to sample a map, one for GPUs and one for CPUs."""

import pytest
import torch
from torch import nn

from exports.sampling import sample, sample_rows


def test_sampling_reads_the_centre_of_a_cell() -> None:
    dense = torch.randn(1, 8, 4, 6)
    x, y = 2, 1
    at = torch.tensor([[[(x + 0.5) / 6 * 2 - 1, (y + 0.5) / 4 * 2 - 1]]])
    torch.testing.assert_close(sample(dense, at)[0, 0], dense[0, :, y, x])


@pytest.mark.parametrize("size", [(4, 6), (1, 5), (2, 1)])
@pytest.mark.parametrize("doubled", [False, True])
def test_rows_are_sampled_alike(size: tuple[int, int], doubled: bool) -> None:
    """Also beyond the border, on it and on cells' centres."""
    dense = torch.randn(3, 8, *size)
    keypoints = torch.rand(3, 500, 2) * 2.4 - 1.2
    keypoints[:, :4] = torch.tensor([[-1.0, -1.0], [1.0, 1.0], [0.0, 0.0], [1 - 1 / size[1], 1 / size[0] - 1]])
    whole = nn.functional.interpolate(dense, scale_factor=2, mode="bilinear") if doubled else dense
    found = sample_rows(dense, keypoints, doubled=doubled)
    torch.testing.assert_close(found, sample(whole, keypoints), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("doubled", [False, True])
def test_a_keypoint_that_is_no_number_harms_no_other(doubled: bool) -> None:
    dense, keypoints = torch.randn(1, 8, 4, 6), torch.zeros(1, 3, 2)
    keypoints[0, 1, 0] = float("nan")
    found = sample_rows(dense, keypoints, doubled=doubled)[0]
    assert found[1].isnan().all()
    assert found[[0, 2]].isfinite().all()
