"""From audio files and corpora to training batches: reading, level, log-mels, the frame store, perturbations."""
