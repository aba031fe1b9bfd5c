"""Voice conversion: waveform → waveform in another voice, with pitch and vocoders."""
