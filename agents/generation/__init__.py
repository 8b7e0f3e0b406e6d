"""From a context to chunks and one finished record; and how adapters go live meanwhile."""
