-- Chunks that a disk has no good bytes of any more, as its node told: to be repaired from other copies. Gone when the
-- node says that it is whole again.
CREATE TABLE damaged (
    disk_uuid TEXT NOT NULL,
    chunk_id  TEXT NOT NULL,
    sha256    BLOB NOT NULL,
    PRIMARY KEY (disk_uuid, chunk_id, sha256)
) STRICT, WITHOUT ROWID;
