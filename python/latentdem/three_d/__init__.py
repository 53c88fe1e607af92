"""Pose-free sparse-view 3D: view-conditioned priors, cameras, procedural objects and their renderings."""
