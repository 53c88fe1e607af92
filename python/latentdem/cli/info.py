"""`latentdem info`: installed versions, and the devices, backends and weights that would be used."""

from __future__ import annotations

from pathlib import Path

from . import _console as console


def info_command() -> None:
    """Print versions, devices, backends and weights."""
    import torch

    from ..errors import UserError
    from ..metrics import lpips_available
    from ..output.report import backends, versions
    from ..priors.embedded import EMBEDDED_WEIGHTS
    from ..three_d.priors.embedded import EMBEDDED_3D_WEIGHTS, INSTALL

    rows = list(versions().items())
    rows.append(("device", "cpu"))
    rows += [("", f"cuda:{i} {torch.cuda.get_device_name(i)}") for i in range(torch.cuda.device_count())]
    rows.append(("threads", str(torch.get_num_threads())))
    rows += [(f"backend {name}", state) for name, state in backends().items()]
    rows += _weights("weights", EMBEDDED_WEIGHTS.parent, "missing: reinstall the package")
    rows += _weights("weights of views", EMBEDDED_3D_WEIGHTS, f"not installed: {INSTALL}")
    available, reason = lpips_available()
    rows.append(("LPIPS", reason if available else f"not available: {reason}"))
    console.print_table(rows)
    if console.output_is_lost():
        raise UserError(
            "The table was not written: the disk behind the standard output is full; write elsewhere."
        )


def _weights(title: str, folder: Path, otherwise: str) -> list[tuple[str, str]]:
    files = sorted(folder.rglob("*.safetensors"))
    if not files:
        return [(title, otherwise)]
    sizes = [("", f"{file.relative_to(folder)} ({file.stat().st_size / 1e6:.1f} MB)") for file in files]
    return [(title, str(folder)), *sizes]
