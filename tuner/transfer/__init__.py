"""What one study teaches the next: costs of layers on a device, effects of layers on a model's accuracy."""
