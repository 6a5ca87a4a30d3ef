-- Shards that are listed and were found to be none of their chunk: until something else is listed, or they are found to be
-- right after all. No count of what nodes hold finds that again.
CREATE TABLE wrong_shards (
    video_id    TEXT    NOT NULL,
    -- Its place in the video; -1 is the init segment.
    part        INTEGER NOT NULL,
    -- Where it is listed.
    disk_uuid   TEXT    NOT NULL,
    incarnation INTEGER NOT NULL,
    -- The first four bytes of the digest that is listed, the lowest first.
    tag         INTEGER NOT NULL,
    PRIMARY KEY (video_id, part, disk_uuid, incarnation, tag)
) STRICT, WITHOUT ROWID;
