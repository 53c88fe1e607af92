# The compiled module; csrc/cuda/bindings.cpp. Addresses of contiguous float32 and complex64 arrays in memory of
# `device`, 0 for what is absent; every launch goes to `stream`.

oldest_architecture: int  # of a device it runs on: 80 stands for compute capability 8.0

def hqs_kernel_update(
    *,
    kernel: int,
    data_term: int,
    filter: int,
    updated: int,
    batch: int,
    size: int,
    side: int,
    project: bool,
    device: int,
    stream: int,
) -> None: ...
def hqs_finish(
    *,
    response: int,
    data_term: int,
    updated: int,
    batch: int,
    size: int,
    side: int,
    project: bool,
    device: int,
    stream: int,
) -> None: ...
def hqs_solve(
    *,
    x_hat: int,
    y_hat: int,
    weight: int,
    spectra: int,
    batch: int,
    samples: int,
    channels: int,
    points: int,
    parts: int,
    per_channel: bool,
    device: int,
    stream: int,
) -> None: ...
def hqs_crop(
    *,
    solution: int,
    response: int,
    data_term: int,
    padded: int,
    batch: int,
    height: int,
    width: int,
    size: int,
    side: int,
    parts: int,
    device: int,
    stream: int,
) -> None: ...
def blur_residual(
    *,
    spectrum: int,
    y_hat: int,
    otf: int,
    rho: int,
    norm2: int,
    batch: int,
    channels: int,
    height: int,
    width: int,
    parts: int,
    device: int,
    stream: int,
) -> None: ...
def blur_glue(*, correction: int, x: int, glued: int, count: int, device: int, stream: int) -> None: ...
