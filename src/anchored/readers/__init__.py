"""Readers of the formats in which users have their images, one file a format, each from a plan entry to a `Reading`; decoding."""
