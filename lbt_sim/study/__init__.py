"""Studies: many runs of one file, paired by seed and problems, and what they say together."""
