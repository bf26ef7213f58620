"""What is known of a user: events, facts, encoder states; how they are read, kept current, written back and erased."""
