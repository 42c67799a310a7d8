"""What all datasets share: where frames come from, how training varies them, and in which order it sees them."""
