"""Evaluation of the codes and of conversions: trials, error rates, probes, judges and tables."""
