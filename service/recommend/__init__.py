"""One answer to `/recommend`, from the request to the list."""
