"""How good it is: metrics, their intervals, and the page that people read."""
