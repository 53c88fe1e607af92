# The compiled module, csrc/cpu. Tensors are addresses of contiguous float32 values, complex ones of pairs of
# them, the numbers of a sample and norms of float64; 0 for what is absent.

def has_fft(length: int) -> bool: ...
def blur(
    *,
    x: int,
    kernel: int,
    y: int = 0,
    rho: int = 0,
    norm2: int = 0,
    batch: int,
    channels: int,
    height: int,
    columns: int,
    size: int,
    adjoint: bool = False,
    whole_y: bool = False,
    even_width: bool = False,
    threads: int,
) -> None: ...
def finish_fidelity(*, x: int, correction: int, glued: int, count: int, threads: int) -> None: ...
def hqs_prepare(
    *,
    x: int,
    y: int,
    weight: int,
    lags: int,
    batch: int,
    samples: int,
    channels: int,
    height: int,
    columns: int,
    size: int,
    per_channel: bool,
    whole_y: bool,
    threads: int,
) -> None: ...
def hqs_update(
    *,
    kernel: int,
    data_term: int,
    filter: int,
    updated: int,
    batch: int,
    size: int,
    side: int,
    iterations: int,
    project: bool,
    threads: int,
) -> None: ...
def renoise(
    *,
    z_t: int,
    z0: int,
    noise: int,
    abar_t: int,
    abar_prev: int,
    fresh: int,
    z_prev: int,
    batch: int,
    numel: int,
    threads: int,
) -> None: ...
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

# float32 or bfloat16 arrays; weight, bias, mean and rstd float32; gradients of weight and bias float64.

def group_norm_silu(
    *,
    x: int,
    weight: int,
    bias: int,
    y: int,
    mean: int,
    rstd: int,
    batch: int,
    channels: int,
    spatial: int,
    groups: int,
    channels_last: bool,
    bfloat16: bool,
    eps: float,
    threads: int,
) -> None: ...
def group_norm_silu_backward(
    *,
    grad: int,
    x: int,
    weight: int,
    bias: int,
    mean: int,
    rstd: int,
    grad_x: int,
    grad_weight: int,
    grad_bias: int,
    batch: int,
    channels: int,
    spatial: int,
    groups: int,
    channels_last: bool,
    bfloat16: bool,
    threads: int,
) -> None: ...

# Elements of 2 or 4 bytes.

def transpose(
    *, from_: int, to: int, batch: int, rows: int, columns: int, item_size: int, threads: int
) -> None: ...

# Channels-last float32 images of one sample; the tiled arrays are (16, rows * tiles in a row, channels).

def winograd(
    *,
    x: int,
    u: int,
    bias: int,
    y: int,
    batch: int,
    height: int,
    width: int,
    channels: int,
    outputs: int,
    doubled: bool,
    threads: int,
) -> None: ...
