"""How tables and figures look: a printed table as Markdown, LaTeX and HTML, and the style of all figures.

Nothing is computed here. This wing imports `paths` only.
"""
