"""The objectives of other disentangling autoencoders, trained on the networks of R-WAE for comparison."""
