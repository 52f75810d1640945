"""The playground: one page of plain HTML, CSS and JS, with no build step and nothing from elsewhere."""
