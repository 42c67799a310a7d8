"""The centre head, which predicts a heat map of object centres and a box at every cell."""
