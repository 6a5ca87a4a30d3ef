-- How each video is kept by what was decided last, since when and why; and its views, each counting less the older it is.
CREATE TABLE keeping (
    video_id   TEXT NOT NULL PRIMARY KEY,
    mode       TEXT NOT NULL,
    since      INTEGER NOT NULL,
    why        TEXT NOT NULL,
    heat_fast  REAL NOT NULL,
    heat_slow  REAL NOT NULL,
    heat_at    INTEGER NOT NULL,
    -- Views that are in the heat.
    heat_views INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- One row: what somebody set by hand for all videos.
CREATE TABLE keeping_settings (
    one    INTEGER NOT NULL PRIMARY KEY CHECK (one = 1),
    -- Nothing is brought into another form.
    paused INTEGER NOT NULL CHECK (paused IN (0, 1))
) STRICT;

INSERT INTO keeping_settings (one, paused) VALUES (1, 0);
