from __future__ import annotations

import torch

import latentdem_ext as ext

from .fuzzing import fuzz


def test_projection_clips_and_normalises():
    kernel = torch.tensor([[[[1.0, -2.0], [3.0, 0.0]]], [[[0.0, -1.0], [-1.0, 0.0]]]])
    expected = torch.tensor([[[[0.25, 0.0], [0.75, 0.0]]], [[[0.25, 0.25], [0.25, 0.25]]]])
    torch.testing.assert_close(ext.project_kernel(kernel), expected)


def test_projection_is_differentiable():
    kernel = torch.randn(2, 1, 2, 2, dtype=torch.float64)
    kernel[0, 0, 0, 0] = 1.0
    kernel[1] = -kernel[1].abs()  # becomes uniform, whatever it was
    assert torch.autograd.gradcheck(ext.project_kernel, kernel.requires_grad_())
    assert torch.autograd.gradgradcheck(ext.project_kernel, kernel)
    torch.library.opcheck(torch.ops.latentdem.project_kernel.default, (kernel,))


def test_projection_of_one_kernel_ignores_the_others():
    kernels = torch.randn(3, 1, 6, 6)
    for b in range(3):
        torch.testing.assert_close(ext.project_kernel(kernels)[b], ext.project_kernel(kernels[b : b + 1])[0])


def test_arguments_of_every_kind_are_taken_or_refused_by_name():
    fuzz(ext.project_kernel, lambda batch: {"kernel": torch.rand(batch, 1, 3, 3)})
