"""From a measurement of any size to image and parameters: boundary, noise level, search, tiles."""
