"""Images and videos on disk."""
