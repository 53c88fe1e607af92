"""LatentDEM: blind inverse problems with latent diffusion priors.

`deblur` restores a blurred image and its kernel, `burst` one image from several photographs of a scene, and
`restore` undoes any other operator of `latentdem.operators`:

    import latentdem

    result = latentdem.deblur("photo.jpg")  # or a PIL image, an array, a tensor, bytes, a list
    result.save("sharp.jpg")
    result.image, result.kernel  # in the form that was given; a tensor (1, 1, K, K)

Names and modules are imported when they are first used: PyTorch takes more than a second, and
`latentdem --help` need not wait for it. The file `__init__.pyi` lists them.
"""

from __future__ import annotations

import warnings
from importlib import import_module
from typing import Any

import lazy_loader

_attribute, _, __all__ = lazy_loader.attach_stub(__name__, __file__)
__all__ += ["__version__"]

# Old public names, kept for one release: where the object is now, and its new name.
_DEPRECATED = {"Recipe": ("search.config", "SearchConfig")}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version(__name__)
    if name in _DEPRECATED:
        module, new_name = _DEPRECATED[name]
        warnings.warn(
            f"latentdem.{name} is called {new_name} now; the old name will go with the next release.",
            DeprecationWarning,
            stacklevel=2,
        )
        return getattr(import_module(f".{module}", __name__), new_name)
    if name in __all__:
        return _attribute(name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*(name for name in globals() if name.startswith("__")), *__all__})
