"""The search for an unknown blur kernel: hypotheses, trials and the choice between them."""
