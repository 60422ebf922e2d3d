"""fgtrac."""
