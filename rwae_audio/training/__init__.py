"""Training: the loop, checkpoints, perturbed views of a batch, the check for collapsed codes, and TensorBoard."""
