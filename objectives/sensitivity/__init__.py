"""Sensitivity: measures how much each layer and format hurts."""
