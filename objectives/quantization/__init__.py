"""Calibration ranges, weight quantizers, Q/DQ placement rules, and the materialization of an allocation."""
