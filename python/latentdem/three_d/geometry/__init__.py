"""Cameras around an object and their relative poses."""
