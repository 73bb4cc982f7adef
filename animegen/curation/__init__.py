"""Data sets from videos: measurements, selection rules, writing of clips, and a report."""
