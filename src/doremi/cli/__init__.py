"""Parse, call, print: a file a verb. Nothing is decided here."""
