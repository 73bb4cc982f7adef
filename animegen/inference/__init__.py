"""Models applied to files: images and videos in, images and videos out."""
