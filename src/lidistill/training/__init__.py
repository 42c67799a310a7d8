"""One training loop for teachers and students, driven by Lightning. Only this package imports Lightning."""
