"""The weights of the prior `embedded-3d` of latentdem, which looks for them in this folder."""
