"""Metrics, reports and plots of a trained model."""
