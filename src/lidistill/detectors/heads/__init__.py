"""Detection heads: one folder per kind of head, with its settings, targets, losses and decoding."""
