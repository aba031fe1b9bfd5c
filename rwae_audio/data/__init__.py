"""Reading of recordings and corpora, log-mels, perturbations and training batches."""
