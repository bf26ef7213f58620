"""The files of the pages, served by `service.api.static_pages`."""
