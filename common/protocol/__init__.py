"""Records, wire format, codecs and names that coordinator and workers share."""
