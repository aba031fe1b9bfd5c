"""Evaluation of codes and conversions: speaker verification, probes, judges of speech, tables and plots."""
