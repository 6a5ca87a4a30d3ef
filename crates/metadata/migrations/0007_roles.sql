-- What part a disk takes: active, draining (it is emptied), removing (it is emptied and then taken
-- out), sealed (it is empty and votes no more), removed.
ALTER TABLE disks ADD COLUMN role TEXT NOT NULL DEFAULT 'active'
    CHECK (role IN ('active', 'draining', 'removing', 'sealed', 'removed'));
