"""The controller's loops: desired state to running engines."""
