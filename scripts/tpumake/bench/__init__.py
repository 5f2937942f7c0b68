"""`make bench`: rows.py says what is measured, measure.py how, report.py and chart.py show it."""
