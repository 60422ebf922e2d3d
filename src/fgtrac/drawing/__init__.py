"""Charts as inline SVG and pieces of HTML, every text escaped: knows nothing of traces, needs numpy only."""
