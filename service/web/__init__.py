"""The pages for people, as plain files, and the routes that serve them."""
