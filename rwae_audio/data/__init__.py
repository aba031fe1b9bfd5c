"""From recordings to log-mels."""
