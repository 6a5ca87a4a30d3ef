-- The last pass left nothing: when the next finds nothing, the work is done.
ALTER TABLE videos ADD COLUMN reap_confirms INTEGER NOT NULL DEFAULT 0;
