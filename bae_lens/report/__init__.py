"""What people look at: the paper's figures and tables from the results of one's own runs, and a page for each BAE."""
