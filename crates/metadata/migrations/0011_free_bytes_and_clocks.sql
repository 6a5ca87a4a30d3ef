-- Bytes of its disk that are free, as its node last said; NULL when it did not.
ALTER TABLE nodes ADD COLUMN disk_free INTEGER;

-- When a video that is kept until trash_until was deleted; NULL otherwise. A moment that is still to come was noted by
-- a clock that was set back since. Of those that were deleted before, it is not known: none was kept for more than a year.
ALTER TABLE videos ADD COLUMN trashed_at INTEGER;
UPDATE videos SET trashed_at = trash_until - 31536000000 WHERE trash_until IS NOT NULL;

-- When a script last worked on a video of its own. Whoever is at one now has the whole time from now on.
ALTER TABLE videos ADD COLUMN touched_at INTEGER;
UPDATE videos SET touched_at = CAST(strftime('%s', 'now') AS INTEGER) * 1000
WHERE status = 'uploading' AND owner IS NULL;
CREATE INDEX videos_by_touch ON videos (touched_at) WHERE status = 'uploading' AND owner IS NULL;

-- When somebody said that this disk does not come back: it did not answer when it was to be removed. NULL when nobody did,
-- or it came back. Of those that are to be removed now it is not known.
ALTER TABLE disks ADD COLUMN given_up INTEGER;
