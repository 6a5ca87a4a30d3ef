-- Copies that were found damaged or missing and are neither whole again nor gone: what is entered once and leaves once.
CREATE TABLE harms (
    video_id    TEXT NOT NULL,
    -- Its place in the video; -1 is the init segment.
    part        INTEGER NOT NULL,
    disk_uuid   TEXT NOT NULL,
    incarnation INTEGER NOT NULL,
    PRIMARY KEY (video_id, part, disk_uuid, incarnation)
) STRICT, WITHOUT ROWID;

-- One row: how many were entered, and how they left.
CREATE TABLE harm_totals (
    one      INTEGER NOT NULL PRIMARY KEY CHECK (one = 1),
    found    INTEGER NOT NULL,
    repaired INTEGER NOT NULL,
    ended    INTEGER NOT NULL
) STRICT;

INSERT INTO harm_totals (one, found, repaired, ended) VALUES (1, 0, 0, 0);
