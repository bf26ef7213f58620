"""What tests share: builders, fakes, servers, service processes."""
