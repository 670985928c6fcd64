"""What may be chosen: layers, formats, groups, allocations, sensitivity tables and the seeds they give."""
