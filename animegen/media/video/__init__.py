"""Video: frames in and out of files, shots, motion."""
