"""What a shop asks for, measured on simulated users and on running services; rows in `results/shop.json`."""
