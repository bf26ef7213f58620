"""The routes, one module for each group of callers: frontends, operators, the playground, readers of the API page."""
