"""The Grafana dashboard, generated from the metrics that exist."""
