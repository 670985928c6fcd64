"""What a run comes to: re-scored and re-timed front, exports, reports."""
