"""View-conditioned priors: the embedded one, Zero123, and how they are loaded."""
