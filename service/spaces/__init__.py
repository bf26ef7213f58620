"""Several spaces in one deployment: the file that describes them, and which of them a request means."""
