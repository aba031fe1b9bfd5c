"""Speech in another voice."""
