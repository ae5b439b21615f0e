"""What to run for each paper or question, and the table or figure that it must give."""
