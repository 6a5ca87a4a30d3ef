-- Chunks that take the place of others whose registers lost their majority for good, with their first acceptors. Written
-- before any of those hears of one, and kept: what was salvaged is known to be nobody's concern any more.
CREATE TABLE salvages (
    chunk_id TEXT NOT NULL PRIMARY KEY,
    of_chunk TEXT NOT NULL,
    video_id TEXT NOT NULL REFERENCES videos (video_id),
    -- As those of groups.
    members  TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX salvages_by_of ON salvages (of_chunk);
