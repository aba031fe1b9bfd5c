"""The console commands: one file for each, and what they share."""
