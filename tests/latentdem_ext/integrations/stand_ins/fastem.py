"""For `util.utils_agem` of FastDiffusionEM and `emutil.utils_agem` of the LatentDEM release.

Blur by complex transforms of the whole image; the kernel's origin is at half its side, rounded down. The
M-step solves each colour channel alone (sums over the batch of x) and averages the channels.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage


def p2o(psf, shape):
    height, width = psf.shape[-2:]
    padded = psf.new_zeros(*psf.shape[:-2], *shape)
    padded[..., :height, :width] = psf
    return padded.roll((-(height // 2), -(width // 2)), (-2, -1))


def o2p(otf, shape):
    return otf.roll((shape[0] // 2, shape[1] // 2), (-2, -1))[..., : shape[0], : shape[1]]


def fft_blur(img, k):
    transfer = torch.fft.fft2(p2o(k, tuple(img.shape[-2:])))
    return torch.fft.ifft2(transfer * torch.fft.fft2(img)).real


def data_solution_deblur(z, x, y, alpha):
    x_hat = torch.fft.fft2(x)
    power = (x_hat * x_hat.conj()).sum(0, keepdim=True)
    right = x_hat.conj().sum(0, keepdim=True) * torch.fft.fft2(y) + torch.fft.fft2(alpha * z)
    return torch.fft.ifft2(right / (power + alpha)).real


def normalize_kernel(k):
    positive = k.clamp(min=0)
    return positive / positive.sum((-2, -1), keepdim=True)


def regularization_step(k, lamb, beta, denoiser=None, how="l1"):
    if how == "l1":
        return normalize_kernel(k - lamb / beta)
    if how == "l2":
        return normalize_kernel(k * beta / (2 * lamb + beta))
    level = torch.full_like(k[:, :1], (lamb / beta) ** 0.5)
    return normalize_kernel(denoiser(torch.cat([k, level], 1)) if lamb else k)


def HQS_ker(y, x, sigma, init_ker, denoiser=None, reg="pnp", beta=1e5, lamb=1, n_iter=100, ksize=33):
    kernel = init_ker
    for _ in range(n_iter):
        padded = p2o(kernel, tuple(y.shape[-2:]))
        solution = data_solution_deblur(padded, x, y, sigma**2 * beta).mean(1, keepdim=True)
        kernel = normalize_kernel(o2p(solution, (ksize, ksize)))
        kernel = normalize_kernel(regularization_step(kernel, lamb, beta, denoiser=denoiser, how=reg))
    return kernel


def kernel_shift(kernel, sf):
    sides = np.array(kernel.shape)
    wanted = sides // 2 + 0.5 * (np.array(sf) - sides % 2)
    return ndimage.shift(kernel, wanted - ndimage.center_of_mass(kernel))
