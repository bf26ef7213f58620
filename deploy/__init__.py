"""What runs the service somewhere: images, manifests, Prometheus, Grafana, and the demo."""
