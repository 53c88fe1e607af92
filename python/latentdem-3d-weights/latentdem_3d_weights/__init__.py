"""The weights of the prior `embedded-3d` of latentdem; `latentdem.three_d.priors.embedded` finds this folder."""
