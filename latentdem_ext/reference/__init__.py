"""The definition of each operation in plain PyTorch, which every other implementation is compared with.

Notation: x image (B, C, H, W), y measurement of the same shape, k kernel (B, 1, K, K) with its origin at index
K // 2, F the unnormalised two-dimensional DFT over the image grid H x W, conj the complex conjugate. Blur is
true convolution, circular on that grid. Nothing mixes the samples of a batch. Floating-point type: float32 or
float64 for what uses F, any for the rest. Arguments are taken as correct; the functions of the same names in
`latentdem_ext` check them.
"""

from . import common, edges, fourier, frustum, masked, network, plug_and_play, sampling
from .common import *  # noqa: F403
from .edges import *  # noqa: F403
from .fourier import *  # noqa: F403
from .frustum import *  # noqa: F403
from .masked import *  # noqa: F403
from .network import *  # noqa: F403
from .plug_and_play import *  # noqa: F403
from .sampling import *  # noqa: F403

__all__ = [
    *common.__all__,
    *edges.__all__,
    *fourier.__all__,
    *frustum.__all__,
    *masked.__all__,
    *network.__all__,
    *plug_and_play.__all__,
    *sampling.__all__,
]
