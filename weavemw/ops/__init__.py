"""What an operator sees: counters, metrics, the last errors, run files, logs."""
