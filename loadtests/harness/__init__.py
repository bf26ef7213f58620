"""Starts and stops what is measured: service processes, Valkey, proxies, faulty models, Prometheus."""
