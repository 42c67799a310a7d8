"""What run folders say: runs, gains, times, and tables of them."""
