"""The page and the table that show what runs and evaluations found."""
