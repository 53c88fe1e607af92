"""Search for the cameras of the known views."""
