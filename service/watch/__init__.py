"""What lists and traffic are like, by hour and day, and whether they drift from what the model was made on."""
