"""The bottom layer: words that every other layer uses, and nothing of the mesh."""
