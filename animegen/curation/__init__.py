"""From films to clips for training: what is measured, which rules choose, what is written, and a report of it all."""
