"""Live page of a run: its plan with reasons, pictures, curves, time left and price."""
