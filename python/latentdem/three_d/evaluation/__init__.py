"""Evaluation of poses, views and meshes on procedural objects."""
