"""What many runs say together: tables, plots, picture strips, pages."""
