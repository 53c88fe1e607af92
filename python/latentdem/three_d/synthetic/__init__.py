"""Procedural objects and their renderings, to train and to test with."""
