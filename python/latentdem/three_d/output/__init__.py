"""Result of a reconstruction, its figure and its files."""
