"""A trained model as a bundle: its files, the codes of recordings, and sequences from the priors."""
