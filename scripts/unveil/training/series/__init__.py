"""Series of real dates to train on: read from several layouts, and samples drawn of them."""
