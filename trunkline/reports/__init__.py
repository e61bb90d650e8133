"""The ear's reports: recordings found and read, reports as lines and as a page."""
