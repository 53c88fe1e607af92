"""From views and cameras to a mesh."""
