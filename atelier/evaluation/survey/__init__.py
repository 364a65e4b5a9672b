"""People compare painters: who is asked what, and what their answers say."""
