"""Published figures on the benchmarks of blind deblurring, with their sources."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """Mean of a method over a whole benchmark; PSNR in dB, None where only the other figure is known."""

    method: str
    psnr: float | None
    mnc: float | None
    source: str


_SELF_DEBLUR = "Ren et al., SelfDeblur, CVPR 2020"
_INR = "cross-scale implicit neural representation, NeurIPS 2024"
_LATER = "figure from a later comparison"
_NO_MNC_SOURCE = "source of the MNC not recorded"

LEVIN = (
    Published("blurred input", 23.19, None, "mean over the 32 pictures"),
    Published("Cho and Lee", 30.57, 0.755, f"Cho and Lee 2009; as in {_SELF_DEBLUR}; {_NO_MNC_SOURCE}"),
    Published("Xu and Jia", 31.67, None, f"Xu and Jia 2010; as in {_SELF_DEBLUR}"),
    Published(
        "Pan et al., dark channel", 32.69, 0.798, f"Pan et al. 2016; as in {_SELF_DEBLUR}; {_NO_MNC_SOURCE}"
    ),
    Published("Sun et al.", 32.99, 0.816, f"Sun et al. 2013; as in {_SELF_DEBLUR}; {_NO_MNC_SOURCE}"),
    Published(
        "SelfDeblur", 33.07, 0.875, f"{_SELF_DEBLUR}; a later run of its code gave 30.87 dB; {_NO_MNC_SOURCE}"
    ),
    Published("INR", 33.74, None, _INR),
    Published("true kernel, sparse deconvolution", 34.53, None, _SELF_DEBLUR),
    Published("MPRNet", 26.21, None, f"Zamir et al., CVPR 2021; {_LATER}"),
    Published("Restormer", 27.78, None, f"Zamir et al., CVPR 2022; {_LATER}"),
    Published("BlindDPS", 14.91, None, f"Chung et al., CVPR 2023; {_LATER}"),
    Published("L0 gradients", None, 0.801, "Anger et al., IPOL 2019"),
    Published("Levin et al.", None, 0.787, f"Levin et al. 2011; {_NO_MNC_SOURCE}"),
    Published("Fergus et al.", None, 0.764, f"Fergus et al. 2006; {_NO_MNC_SOURCE}"),
)

KOEHLER = (
    Published("SelfDeblur", 25.85, None, f"{_SELF_DEBLUR}; {_LATER}"),
    Published("Cho and Lee", 28.98, None, "Cho and Lee 2009; source of the figure not recorded"),
    Published("VDIP", 29.58, None, "variational deep image prior, Huo et al. 2023"),
    Published("MCEM", 30.26, None, "Li et al., CVPR 2023"),
    Published("INR", 30.69, None, _INR),
)

LAI = (
    Published("Xu and Jia", 20.18, None, f"Xu and Jia 2010; as in {_SELF_DEBLUR}"),
    Published("Pan et al.", 19.89, None, f"Pan et al. 2016; as in {_SELF_DEBLUR}"),
    Published("SelfDeblur", 20.97, None, _SELF_DEBLUR),
    Published("MCEM", 24.55, None, "Li et al., CVPR 2023"),
    Published("VDIP", 25.12, None, "variational deep image prior, Huo et al. 2023"),
    Published("INR", 25.16, None, _INR),
    Published("MPRNet", 16.15, None, f"Zamir et al., CVPR 2021; {_LATER}"),
    Published("Restormer", 16.31, None, f"Zamir et al., CVPR 2022; {_LATER}"),
    Published("L0 gradients", None, 0.656, "Anger et al., IPOL 2019"),
)
