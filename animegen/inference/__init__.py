"""Models applied to files: pictures and films in, pictures and films out."""
