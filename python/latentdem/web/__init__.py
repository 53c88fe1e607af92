"""A page in the browser of this machine that restores photographs, one at a time."""
