-- How often chunks of a video changed their form, by the form that they came into; and when they did so last, as far as was
-- seen by who decides how it is kept.
ALTER TABLE videos ADD COLUMN turns_to_copies INTEGER NOT NULL DEFAULT 0;
ALTER TABLE videos ADD COLUMN turns_to_shards INTEGER NOT NULL DEFAULT 0;

-- NULL while none was seen.
ALTER TABLE keeping ADD COLUMN to_copies_at INTEGER;
ALTER TABLE keeping ADD COLUMN to_shards_at INTEGER;
-- Changes that are in these.
ALTER TABLE keeping ADD COLUMN turns_to_copies INTEGER NOT NULL DEFAULT 0;
ALTER TABLE keeping ADD COLUMN turns_to_shards INTEGER NOT NULL DEFAULT 0;
