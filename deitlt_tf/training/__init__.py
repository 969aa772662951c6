"""From the last checkpoint to the last step, for student and teacher. May import every other room of the library."""
