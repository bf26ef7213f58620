"""Everything to run the service: images, manifests, Prometheus, Grafana, and the demo."""
