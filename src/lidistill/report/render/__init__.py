"""From measures to a page: HTML, Markdown, LaTeX, the terminal, curves and pictures."""
