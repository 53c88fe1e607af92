"""The search for the cameras of the known views."""
