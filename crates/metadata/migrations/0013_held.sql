-- What this disk holds, as its node told at held_at: bytes of its items, and of its filesystem that its superblocks take.
-- NULL while it never told.
ALTER TABLE disks ADD COLUMN held_bytes INTEGER;
ALTER TABLE disks ADD COLUMN held_allocated_bytes INTEGER;
ALTER TABLE disks ADD COLUMN held_at INTEGER;
