"""What says where objects are: one folder a kind of head, with its settings, targets, losses and decoding."""
