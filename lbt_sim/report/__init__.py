"""Reports: a run or a study as one self-contained HTML file, as Markdown, as tidy tables."""
