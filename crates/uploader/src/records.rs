//! What is remembered of uploads that are over, also by the next process: how each ended, and which copies of its
//! chunks were still to be made.
//!
//! One file of JSON per upload under `TEMP_DIR/over`, and beside it, while copies are missing, one with a line per
//! missing copy. A line is written before the copy is put off, the file goes when the last copy is made; making a copy
//! twice is harmless, so that lines are never taken out one by one.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use uuid::Uuid;
use vstack_api::{auth::header_bytes, uploader::UploadStatus};
use vstack_chunkpaxos::{Request, Vote};
use vstack_client::Holder;
use vstack_types::{ChunkId, Timestamp};

/// Most bytes read of a file of missing copies: 50,000 lines.
const COPIES_BYTES_MAX: u64 = 64 << 20;

/// How an upload ended.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Ending {
    /// Its last status.
    pub status: UploadStatus,
    /// When that was, in milliseconds since 1970.
    pub over_at: Timestamp,
}

/// A copy that is still to be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyRecord {
    /// Who lacks it.
    pub to: Holder,
    /// Of what.
    pub chunk: ChunkId,
    /// Who has it.
    pub from: Vec<Holder>,
    /// Base64url of the encoded message that tells the decision.
    decided: String,
}

impl CopyRecord {
    /// The copy on `to` of what `vote` placed.
    pub fn new(to: Holder, chunk: ChunkId, from: Vec<Holder>, vote: &Vote) -> Self {
        let news = Request::Decided {
            ballot: vote.ballot,
            placement: vote.placement.clone(),
        };
        Self {
            to,
            chunk,
            from,
            decided: header_bytes::encode(&news.encode()),
        }
    }

    /// What was decided; none when the line is not ours.
    pub fn vote(&self) -> Option<Vote> {
        match Request::decode(&header_bytes::decode(&self.decided)?) {
            Ok(Request::Decided { ballot, placement }) => Some(Vote { ballot, placement }),
            _ => None,
        }
    }
}

/// The directory.
#[derive(Debug, Clone)]
pub struct Records {
    dir: PathBuf,
}

impl Records {
    /// Opens or makes it.
    pub fn open(temp_dir: &Path) -> io::Result<Self> {
        let dir = temp_dir.join("over");
        fs::create_dir_all(&dir)?;
        Ok(Self { dir })
    }

    fn ending_path(&self, id: Uuid) -> PathBuf {
        self.dir.join(format!("{id}.json"))
    }

    fn copies_path(&self, id: Uuid) -> PathBuf {
        self.dir.join(format!("{id}.copies.json"))
    }

    /// Remembers how `id` ended, durably and whole or not at all.
    pub fn write_ending(&self, id: Uuid, ending: &Ending) -> io::Result<()> {
        let new = self.dir.join(format!("{id}.new.json"));
        let mut file = File::create(&new)?;
        file.write_all(&serde_json::to_vec(ending)?)?;
        file.sync_all()?;
        fs::rename(new, self.ending_path(id))?;
        File::open(&self.dir)?.sync_all()
    }

    /// All that are remembered, the first to end first. What cannot be read is left out.
    pub fn endings(&self) -> io::Result<Vec<(Uuid, Ending)>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let path = entry?.path();
            let id = path
                .file_name()
                .and_then(|name| name.to_str()?.strip_suffix(".json")?.parse().ok());
            let Some(id) = id else { continue };
            match fs::read(&path).map(|text| serde_json::from_slice::<Ending>(&text)) {
                Ok(Ok(ending)) => found.push((id, ending)),
                unreadable => tracing::warn!(path = %path.display(), ?unreadable, "a finished upload cannot be read"),
            }
        }
        found.sort_by_key(|(_, ending)| ending.over_at);
        Ok(found)
    }

    /// Puts a copy off.
    pub fn append_copy(&self, id: Uuid, copy: &CopyRecord) -> io::Result<()> {
        let mut line = serde_json::to_vec(copy)?;
        line.push(b'\n');
        File::options()
            .create(true)
            .append(true)
            .open(self.copies_path(id))?
            .write_all(&line)
    }

    /// Copies that were put off. A line cut short by a crash is left out.
    pub fn copies(&self, id: Uuid) -> Vec<CopyRecord> {
        let path = self.copies_path(id);
        let small = fs::metadata(&path).is_ok_and(|file| file.len() <= COPIES_BYTES_MAX);
        let text = if small {
            fs::read(&path).unwrap_or_default()
        } else {
            Vec::new()
        };
        text.split(|byte| *byte == b'\n')
            .filter_map(|line| serde_json::from_slice(line).ok())
            .collect()
    }

    /// No copies of `id` are missing.
    pub fn clear_copies(&self, id: Uuid) {
        let _may_be_none = fs::remove_file(self.copies_path(id));
    }

    /// Forgets `id`.
    pub fn forget(&self, id: Uuid) {
        self.clear_copies(id);
        let _may_be_none = fs::remove_file(self.ending_path(id));
    }
}

#[cfg(test)]
mod tests {
    use vstack_api::uploader::UploadStage;
    use vstack_chunkpaxos::{Ballot, Layout, Placement};
    use vstack_types::{Digest, NodeRef, NodeUuid, ProcessUuid};

    use super::*;
    use crate::session::tests::status;

    #[test]
    fn endings_and_missing_copies_read_back() {
        let temp = tempfile::tempdir().unwrap();
        let records = Records::open(temp.path()).unwrap();
        let [late, early] = [(Uuid::new_v4(), 20), (Uuid::new_v4(), 10)];
        for (id, time) in [late, early] {
            let ending = Ending {
                status: status(UploadStage::Completed),
                over_at: Timestamp(time),
            };
            records.write_ending(id, &ending).unwrap();
        }
        let holder = Holder {
            node: NodeRef::first(NodeUuid::random()),
            url: "http://n".to_owned(),
        };
        let layout = Layout::Replicated {
            nodes: vec![holder.node],
        };
        let placement = Placement {
            version: 1,
            size: 3,
            sha256: Digest::of(b"abc"),
            layout,
            prev: None,
            back: false,
        };
        let vote = Vote {
            ballot: Ballot::zero(ProcessUuid::random()),
            placement,
        };
        let copy = CopyRecord::new(holder.clone(), "a-chunk".parse().unwrap(), vec![holder], &vote);
        records.append_copy(late.0, &copy).unwrap();
        records.append_copy(late.0, &copy).unwrap();
        File::options()
            .append(true)
            .open(records.copies_path(late.0))
            .unwrap()
            .write_all(b"{\"to\":{\"no")
            .unwrap();

        let again = Records::open(temp.path()).unwrap();
        let ids: Vec<_> = again.endings().unwrap().into_iter().map(|(id, _)| id).collect();
        assert_eq!(ids, [early.0, late.0]);
        assert_eq!(again.copies(late.0), [copy.clone(), copy]);
        assert_eq!(again.copies(late.0)[0].vote(), Some(vote));
        assert_eq!(again.copies(early.0), []);
        again.forget(late.0);
        assert_eq!(again.endings().unwrap().len(), 1);
        assert_eq!(fs::read_dir(temp.path().join("over")).unwrap().count(), 1);
    }
}
