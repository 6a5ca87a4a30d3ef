-- How far the log of every disk reached that ever registered under the cluster secret. Never deleted: a node's row goes
-- when another takes its label or its URL, and the disk that was there may come back and must not have forgotten votes.
CREATE TABLE disks (
    disk_uuid TEXT    NOT NULL PRIMARY KEY,
    log_seq   INTEGER NOT NULL,
    -- It last registered with a shorter log than before: not trusted until it registers with one as long.
    went_back INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

INSERT INTO disks (disk_uuid, log_seq, went_back)
SELECT disk_uuid, log_seq, went_back FROM nodes WHERE disk_uuid IS NOT NULL AND (log_seq > 0 OR went_back != 0);

ALTER TABLE nodes DROP COLUMN log_seq;
ALTER TABLE nodes DROP COLUMN went_back;
-- The process that registered: another one under the same disk is another copy of it.
ALTER TABLE nodes ADD COLUMN process TEXT;
