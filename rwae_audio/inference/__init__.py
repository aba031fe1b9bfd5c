"""A trained model: its bundle, and what it says of recordings."""
