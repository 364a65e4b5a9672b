"""The starter data set: drawings from a seed, and a network trained on them."""
