"""What happens when somebody opens a page or touches it: the only place that reads the store for a page."""
