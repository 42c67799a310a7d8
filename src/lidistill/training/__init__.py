"""One loop for teachers and students. Lightning drives it; nothing outside this room imports it."""
