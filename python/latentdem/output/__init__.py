"""What a restoration gives and the files it leaves: result, figures, report."""
