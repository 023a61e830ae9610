"""Documents to a store of tokens: split, encoded, written in units that many workers can share."""
