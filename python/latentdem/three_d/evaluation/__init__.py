"""Poses, new views and surfaces of held-out procedural objects against the truth: `latentdem evaluate-3d`."""
