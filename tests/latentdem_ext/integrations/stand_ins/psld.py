"""For `ldm.models.diffusion.psld` of PSLD: one DDIM step in latent space, measured and glued.

Norms are over the whole batch and not squared; the measurement noise is drawn again for the prediction; the
gluing term compares the clean latent with the code of A^T y + x - A^T A x.
"""

from __future__ import annotations

import torch


def noise_like(shape, device, repeat=False):
    return (
        torch.randn((1, *shape[1:]), device=device).expand(shape)
        if repeat
        else torch.randn(shape, device=device)
    )


class DDIMSampler:
    def __init__(self, model, alphas, alphas_prev, eta):
        self.model, self.ddim_alphas, self.ddim_alphas_prev = model, alphas, alphas_prev.numpy()
        self.ddim_sigmas = eta * ((1 - alphas_prev) / (1 - alphas) * (1 - alphas / alphas_prev)).sqrt()
        self.ddim_sqrt_one_minus_alphas = (1 - alphas).sqrt()

    def p_sample_ddim(
        self,
        x,
        c,
        t,
        index,
        repeat_noise=False,
        use_original_steps=False,
        quantize_denoised=False,
        temperature=1.0,
        noise_dropout=0.0,
        score_corrector=None,
        corrector_kwargs=None,
        unconditional_guidance_scale=1.0,
        unconditional_conditioning=None,
        ip_mask=None,
        measurements=None,
        operator=None,
        gamma=1,
        inpainting=False,
        gamma_scale=None,
        omega=1e-1,
        general_inverse=False,
        noiser=None,
        ffhq256=False,
    ):
        z = x.detach().clone().requires_grad_()
        eps = self.model.apply_model(z, t, c)
        if unconditional_conditioning is not None and unconditional_guidance_scale != 1.0:
            plain = self.model.apply_model(z, t, unconditional_conditioning)
            eps = plain + unconditional_guidance_scale * (eps - plain)
        now, before, sigma = (
            float(v[index]) for v in (self.ddim_alphas, self.ddim_alphas_prev, self.ddim_sigmas)
        )
        clean = (z - self.ddim_sqrt_one_minus_alphas[index] * eps) / now**0.5
        noise = noise_like(x.shape, x.device, repeat_noise) * temperature
        noise = torch.nn.functional.dropout(noise, noise_dropout) if noise_dropout else noise
        moved = before**0.5 * clean + (1 - before - sigma**2) ** 0.5 * eps + sigma * noise
        if not (inpainting or general_inverse):
            return moved.detach(), clean.detach()

        def measure(image):
            return operator.forward(image, mask=ip_mask) if inpainting else operator.forward(image)

        image = self.model.differentiable_decode_first_stage(clean)
        fidelity = torch.linalg.norm(noiser(measure(image)) - measurements)
        glued = operator.transpose(measurements) + image - operator.transpose(measure(image))
        code = self.model.get_first_stage_encoding(self.model.encode_first_stage(glued))
        loss = gamma * torch.linalg.norm(code - clean) + omega * fidelity
        print("Loss: ", loss.item())
        return (moved - torch.autograd.grad(loss, z)[0]).detach(), clean.detach()
