"""One operator a file where speed matters: the plain form, the faster forms, and which one runs where."""
