"""One module per activity; each decodes, calls one plain function, publishes."""
