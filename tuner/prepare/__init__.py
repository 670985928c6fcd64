"""What is made once per run before the search: ranges, weights, sensitivity, costs, probe."""
