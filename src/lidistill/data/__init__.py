"""What all datasets share: frame sources, sweeps, augmentation, object database, and the order of training frames."""
