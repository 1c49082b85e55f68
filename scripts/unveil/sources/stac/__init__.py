"""Source ``stac``: any STAC API, by preset; a search is kept in a lock, the lock is fetched."""
