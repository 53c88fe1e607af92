"""Procedural objects and their renderings, for training and tests."""
