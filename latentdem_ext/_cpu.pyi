# The compiled module; csrc/cpu/bindings.cpp. Addresses of contiguous float32 latents and float64 numbers, 0 for
# what is absent.

def dps_step(
    *,
    z_t: int,
    eps: int,
    eps_uncond: int,
    noise: int,
    gradient: int,
    abar_t: int,
    abar_prev: int,
    step_size: int,
    z_prev: int,
    z0: int,
    batch: int,
    numel: int,
    guidance: float,
    eta: float,
    threads: int,
) -> None: ...
