-- What was learned about chunks, in the order in which it was learned, for the census: it reads only what is new.
CREATE TABLE feed (
    change INTEGER NOT NULL
) STRICT;
INSERT INTO feed (change) SELECT COALESCE(MAX(rowid), 0) FROM chunks;

ALTER TABLE chunks ADD COLUMN change INTEGER NOT NULL DEFAULT 0;
UPDATE chunks SET change = rowid;
CREATE INDEX chunks_by_change ON chunks (change);

CREATE TRIGGER chunk_learned AFTER INSERT ON chunks BEGIN
    UPDATE feed SET change = change + 1;
    UPDATE chunks SET change = (SELECT change FROM feed) WHERE rowid = NEW.rowid;
END;

CREATE TRIGGER chunk_placed AFTER UPDATE OF placement ON chunks BEGIN
    UPDATE feed SET change = change + 1;
    UPDATE chunks SET change = (SELECT change FROM feed) WHERE rowid = NEW.rowid;
END;

-- Videos of which the chunks are to go: nobody's concern any more.
CREATE TABLE gone (
    change   INTEGER NOT NULL PRIMARY KEY,
    video_id TEXT    NOT NULL
) STRICT;

CREATE TRIGGER video_ended AFTER UPDATE OF reap_state ON videos
WHEN OLD.reap_state = 'not_due' AND NEW.reap_state <> 'not_due' BEGIN
    UPDATE feed SET change = change + 1;
    INSERT INTO gone (change, video_id) VALUES ((SELECT change FROM feed), NEW.video_id);
END;
