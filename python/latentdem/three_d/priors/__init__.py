"""View-conditioned priors: their interface, the embedded one, Zero123, and loading by name."""
