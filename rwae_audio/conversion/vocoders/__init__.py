"""From log-mels to a waveform."""
