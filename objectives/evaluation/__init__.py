"""One evaluation in a process of its own: materialize, build, score, time."""
