"""What a choice costs: accuracy, latency and size of one allocation on one runtime."""
