"""Models that run in this process: one file for each format of weights."""
