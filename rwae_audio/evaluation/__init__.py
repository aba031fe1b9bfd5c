"""What do the codes hold? Trials, rates, probes, judges, tables."""
