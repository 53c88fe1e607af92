from __future__ import annotations

import torch

from latentdem.io.channels import from_rgb, to_rgb


def test_grey_images_come_back_unchanged() -> None:
    grey = torch.rand(2, 1, 4, 5)
    assert to_rgb(grey).shape == (2, 3, 4, 5)
    torch.testing.assert_close(from_rgb(to_rgb(grey), 1), grey)


def test_rgb_images_pass_through_and_become_their_mean() -> None:
    image = torch.rand(2, 3, 4, 5)
    assert torch.equal(to_rgb(image), image)
    assert from_rgb(image, 3) is image
    assert torch.equal(from_rgb(image, 1), image.mean(1, keepdim=True))
