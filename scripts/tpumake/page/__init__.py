"""A report's facts as one HTML file: template, style, and plots as SVG. Runs in `.report`."""
