"""What an evaluation found, for people: one page, and tables."""
