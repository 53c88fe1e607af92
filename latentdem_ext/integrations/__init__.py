"""Drop-in acceleration of other people's code, changed only on request and put back: a module for each project.

    from latentdem_ext.integrations import dps

    with dps.accelerate():      # or dps.apply() ... dps.remove()
        ...

`dps`, `psld`, `fastem` and `diffusers` replace functions of the project of that name by operations of this
package. Before anything changes, signatures are looked at and both versions are called with small tensors: code
that computes something else raises `IntegrationError` and stays as it is. What an operation does not take goes
to the original. `deepinv` gives what `latentdem` offers to users of that library.
"""

from ._integration import IntegrationError

__all__ = ["IntegrationError"]
