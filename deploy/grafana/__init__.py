"""What Grafana shows of the service: the dashboard, its generator, and how both are provisioned."""
