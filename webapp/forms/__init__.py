"""One class per form; errors are sentences of the catalogues."""
