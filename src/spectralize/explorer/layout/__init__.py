"""What pages look like: facts in, components out. Nothing here reads anything."""
