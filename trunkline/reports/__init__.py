"""The ear's reports of recordings, as lines, as a page and as a picture; and what calls cost."""
