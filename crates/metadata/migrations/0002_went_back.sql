-- Its node last registered with a shorter log than before: not trusted until it registers with one as long.
ALTER TABLE nodes ADD COLUMN went_back INTEGER NOT NULL DEFAULT 0;
