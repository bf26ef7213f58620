"""What is measured, started and stopped: service processes, Valkey, proxies, faulty models, Prometheus."""
