"""Modules with the functions that are replaced: names, parameters and meaning of the originals, own words."""
