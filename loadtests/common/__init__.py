"""What every measurement uses: recorded results, histograms, progress."""
