"""Files and figures of a reconstruction."""
