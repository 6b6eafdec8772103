"""Everything that is true without a browser: tables, states, files, sending, reports. Imports no Flask."""
