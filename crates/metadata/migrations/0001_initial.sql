-- Times are milliseconds since 1970-01-01T00:00:00Z. Identifiers are texts in their canonical form.

CREATE TABLE videos (
    video_id        TEXT    NOT NULL PRIMARY KEY,
    title           TEXT    NOT NULL,
    -- Lower case by Unicode's rules, which SQLite's own functions do not know: what searches look in.
    title_folded    TEXT    NOT NULL,
    duration_sec    REAL    NOT NULL,
    status          TEXT    NOT NULL CHECK (status IN ('uploading', 'active', 'failed', 'deleted')),
    owner           TEXT,
    owner_last_seen INTEGER,
    version         INTEGER NOT NULL,
    codecs          TEXT    NOT NULL DEFAULT '',
    width           INTEGER NOT NULL DEFAULT 0,
    height          INTEGER NOT NULL DEFAULT 0,
    created_at      INTEGER NOT NULL,
    view_count      INTEGER NOT NULL DEFAULT 0,
    override_mode   TEXT CHECK (override_mode IN ('replication', 'erasure_coding')),
    fail_reason     TEXT,
    -- Taking the chunks of a failed or deleted video off the nodes: not due, due from reap_next_at on, or done.
    reap_state      TEXT    NOT NULL DEFAULT 'not_due' CHECK (reap_state IN ('not_due', 'due', 'done')),
    reap_attempts   INTEGER NOT NULL DEFAULT 0,
    reap_next_at    INTEGER NOT NULL DEFAULT 0,
    CHECK ((owner IS NULL) = (owner_last_seen IS NULL))
) STRICT;

CREATE INDEX videos_by_status ON videos (status, created_at, video_id);
CREATE INDEX videos_by_owner_silence ON videos (owner_last_seen) WHERE status = 'uploading' AND owner IS NOT NULL;
CREATE INDEX videos_by_reap ON videos (reap_next_at) WHERE reap_state = 'due';

-- Append-only: the acceptors of the first placements of the chunks from from_seq on.
CREATE TABLE groups (
    video_id TEXT    NOT NULL REFERENCES videos (video_id),
    from_seq INTEGER NOT NULL,
    -- `<disk uuid>/<incarnation>`, separated by spaces, in placement order.
    members  TEXT    NOT NULL,
    PRIMARY KEY (video_id, from_seq)
) STRICT, WITHOUT ROWID;

CREATE TABLE chunks (
    chunk_id          TEXT    NOT NULL PRIMARY KEY,
    video_id          TEXT    NOT NULL REFERENCES videos (video_id),
    -- NULL for the init segment, as are the four columns after it.
    sequence_num      INTEGER,
    segment           INTEGER,
    start_sec         REAL,
    duration_sec      REAL,
    independent       INTEGER,
    size_bytes        INTEGER NOT NULL,
    sha256            BLOB    NOT NULL,
    placement_version INTEGER NOT NULL,
    -- The encoded placement; what follows is taken from it, for sums.
    placement         BLOB    NOT NULL,
    mode              TEXT    NOT NULL CHECK (mode IN ('replication', 'erasure_coding', 'deleted')),
    copies            INTEGER NOT NULL,
    physical_bytes    INTEGER NOT NULL
) STRICT;

-- One chunk a place, one init segment a video, in playing order with the init segment first.
CREATE UNIQUE INDEX chunks_by_place ON chunks (video_id, COALESCE(sequence_num, -1));

CREATE TABLE nodes (
    -- The node's label.
    node_id        TEXT    NOT NULL PRIMARY KEY,
    node_url       TEXT    NOT NULL UNIQUE,
    public_url     TEXT    NOT NULL,
    disk_uuid      TEXT UNIQUE,
    incarnation    INTEGER NOT NULL,
    log_seq        INTEGER NOT NULL,
    zone           TEXT    NOT NULL,
    version        TEXT    NOT NULL,
    last_heartbeat INTEGER,
    disk_percent   REAL    NOT NULL,
    chunk_count    INTEGER NOT NULL,
    trusted        INTEGER NOT NULL
) STRICT;
