"""What all datasets share: where frames come from, which scans they join, how training varies them and orders them."""
