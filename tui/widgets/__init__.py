"""Small widgets and text elements that the panes are made of."""
