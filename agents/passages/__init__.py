"""Between documents and passages: written by ingest, followed by retrieve."""
