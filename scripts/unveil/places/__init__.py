"""Public places: which there are, how their series are fetched and read, and what each is for."""
