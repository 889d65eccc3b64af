-- Whoever may write snapshots need not be allowed to change spectrograms: the lock that the pin takes on its spectrogram is
-- the function owner's business. Its search_path is fixed, so that nothing of the caller's is called in its place.
ALTER FUNCTION spectralize.refuse_expired_pin() SECURITY DEFINER SET search_path = pg_catalog, pg_temp;
