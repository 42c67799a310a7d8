"""The anchor head, which predicts boxes relative to anchors at the cells of a map."""
