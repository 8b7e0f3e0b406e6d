"""An adapter's learning: its promise, its releases, what is live, and whether it learns."""
