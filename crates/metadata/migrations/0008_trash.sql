-- A deleted video of which the chunks are kept until then, so that it can be restored; NULL otherwise.
ALTER TABLE videos ADD COLUMN trash_until INTEGER;
CREATE INDEX videos_by_trash ON videos (trash_until) WHERE trash_until IS NOT NULL;
