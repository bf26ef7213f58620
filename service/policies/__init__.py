"""Who is decoded how: segment rules, their file, and what operators put in its place."""
