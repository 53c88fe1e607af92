"""Drop-in acceleration of the code of other projects, on request and reversible: a module for each project.

    from latentdem_ext.integrations import dps

    with dps.accelerate():      # or dps.apply() ... dps.remove()
        ...

`dps`, `psld`, `fastem` and `diffusers` replace functions of the project of that name by operations of this
package. Before anything changes, signatures are checked and both versions are called with small tensors: code
that computes something else raises `IntegrationError` and is not changed. Calls that an operation does not take
go to the original. `deepinv` is the former name of `latentdem.integrations.deepinv`.
"""

from ._integration import IntegrationError

__all__ = ["IntegrationError"]
