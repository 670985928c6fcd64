"""The search: trials, records, the front, and the loop that asks and tells."""
