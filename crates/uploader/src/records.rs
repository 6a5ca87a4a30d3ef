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
    sync::{Arc, Mutex, MutexGuard, PoisonError},
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
    /// Chunks whose group was too small.
    #[serde(default)]
    pub thin: u32,
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
    /// The chunk's group was too small: it is counted for that.
    #[serde(default)]
    pub thin: bool,
}

impl CopyRecord {
    /// The copy on `to` of what `vote` placed.
    pub fn new(to: Holder, chunk: ChunkId, from: Vec<Holder>, vote: &Vote, thin: bool) -> Self {
        let news = Request::Decided {
            ballot: vote.ballot,
            placement: vote.placement.clone(),
        };
        Self {
            to,
            chunk,
            from,
            decided: header_bytes::encode(&news.encode()),
            thin,
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

/// The directory. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Records {
    dir: PathBuf,
    /// Held while a file of copies is changed, by threads that may wait for the disk and never across an await.
    copies: Arc<Mutex<()>>,
}

impl Records {
    /// Opens or makes it.
    pub fn open(temp_dir: &Path) -> io::Result<Self> {
        let dir = temp_dir.join("over");
        fs::create_dir_all(&dir)?;
        Ok(Self {
            dir,
            copies: Arc::default(),
        })
    }

    /// Does `work` on a thread that may wait for the disk.
    async fn aside<T: Send + 'static>(&self, work: impl FnOnce(&Self) -> T + Send + 'static) -> io::Result<T> {
        let this = self.clone();
        vstack_service::aside(move || work(&this)).await
    }

    fn copies(&self) -> MutexGuard<'_, ()> {
        self.copies.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ending_path(&self, id: Uuid) -> PathBuf {
        self.dir.join(format!("{id}.json"))
    }

    fn copies_path(&self, id: Uuid) -> PathBuf {
        self.dir.join(format!("{id}.copies.json"))
    }

    /// Remembers how `id` ended, durably and whole or not at all; one that failed needs no more copies.
    pub async fn write_ending(&self, id: Uuid, ending: Ending, failed: bool) -> io::Result<()> {
        let write = move |this: &Self| {
            if failed {
                this.remove_copies(id);
            }
            let new = this.dir.join(format!("{id}.new.json"));
            let mut file = File::create(&new)?;
            file.write_all(&serde_json::to_vec(&ending)?)?;
            file.sync_all()?;
            fs::rename(new, this.ending_path(id))?;
            File::open(&this.dir)?.sync_all()
        };
        self.aside(write).await?
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
        found.sort_by_key(|(id, ending)| (ending.over_at, *id));
        Ok(found)
    }

    /// Puts a copy off, durably.
    pub async fn append_copy(&self, id: Uuid, copy: &CopyRecord) -> io::Result<()> {
        let mut line = serde_json::to_vec(copy)?;
        line.push(b'\n');
        let append = move |this: &Self| {
            let path = this.copies_path(id);
            let _alone = this.copies();
            let is_new = !path.exists();
            let mut file = File::options().create(true).append(true).open(path)?;
            file.write_all(&line)?;
            file.sync_data()?;
            if is_new {
                File::open(&this.dir)?.sync_all()
            } else {
                Ok(())
            }
        };
        self.aside(append).await?
    }

    /// Copies that were put off. A line cut short by a crash is left out.
    pub fn put_off(&self, id: Uuid) -> Vec<CopyRecord> {
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

    /// Forgets the copies of `id` if `are_made` says so while no copy is being put off.
    pub async fn clear_copies(&self, id: Uuid, are_made: impl FnOnce() -> bool + Send + 'static) {
        let clear = move |this: &Self| {
            let _alone = this.copies();
            if are_made() {
                let _may_be_none = fs::remove_file(this.copies_path(id));
            }
        };
        // It only panics when the process stops; then the copies are made once more.
        let _done = self.aside(clear).await;
    }

    fn remove_copies(&self, id: Uuid) {
        let _alone = self.copies();
        let _may_be_none = fs::remove_file(self.copies_path(id));
    }

    /// Forgets `ids`.
    pub async fn forget(&self, ids: Vec<Uuid>) {
        if ids.is_empty() {
            return;
        }
        let forget = move |this: &Self| {
            for id in ids {
                this.remove_copies(id);
                let _may_be_none = fs::remove_file(this.ending_path(id));
            }
        };
        let _done = self.aside(forget).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use vstack_api::uploader::UploadStage;
    use vstack_chunkpaxos::{Ballot, Layout, Placement};

    use vstack_types::{Digest, NodeRef, NodeUuid, ProcessUuid};

    use super::*;
    use crate::session::tests::status;

    fn a_copy() -> CopyRecord {
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
        CopyRecord::new(holder.clone(), "a-chunk".parse().unwrap(), vec![holder], &vote, false)
    }

    #[tokio::test]
    async fn endings_and_missing_copies_read_back() {
        let temp = tempfile::tempdir().unwrap();
        let records = Records::open(temp.path()).unwrap();
        let [late, early] = [(Uuid::new_v4(), 20), (Uuid::new_v4(), 10)];
        for (id, time) in [late, early] {
            let ending = Ending {
                status: status(UploadStage::Completed),
                over_at: Timestamp(time),
                thin: 0,
            };
            records.write_ending(id, ending, false).await.unwrap();
        }
        let copy = a_copy();
        records.append_copy(late.0, &copy).await.unwrap();
        records.append_copy(late.0, &copy).await.unwrap();
        File::options()
            .append(true)
            .open(records.copies_path(late.0))
            .unwrap()
            .write_all(b"{\"to\":{\"no")
            .unwrap();

        let again = Records::open(temp.path()).unwrap();
        let ids: Vec<_> = again.endings().unwrap().into_iter().map(|(id, _)| id).collect();
        assert_eq!(ids, [early.0, late.0]);
        assert_eq!(again.put_off(late.0), [copy.clone(), copy.clone()]);
        assert_eq!(again.put_off(late.0)[0].vote(), copy.vote());
        assert_eq!(again.put_off(early.0), []);
        again.forget(vec![late.0]).await;
        assert_eq!(again.endings().unwrap().len(), 1);
        assert_eq!(fs::read_dir(temp.path().join("over")).unwrap().count(), 1);
    }

    #[tokio::test]
    async fn a_copy_put_off_while_the_last_one_is_made_is_not_forgotten() {
        let temp = tempfile::tempdir().unwrap();
        let records = Records::open(temp.path()).unwrap();
        let id = Uuid::new_v4();
        let (copy, pending) = (a_copy(), Arc::new(AtomicU32::new(1)));
        records.append_copy(id, &copy).await.unwrap();
        // The last copy is made; before it is looked whether all are, another is put off.
        let (ask, asked) = std::sync::mpsc::channel();
        let (answer, answered) = std::sync::mpsc::channel();
        let clear = tokio::spawn({
            let (records, pending) = (records.clone(), Arc::clone(&pending));
            async move {
                let are_made = move || {
                    let made = pending.load(Ordering::Relaxed) == 0;
                    ask.send(()).unwrap();
                    answered.recv().unwrap();
                    made
                };
                records.clear_copies(id, are_made).await;
            }
        });
        pending.store(0, Ordering::Relaxed);
        tokio::task::spawn_blocking(move || asked.recv().unwrap())
            .await
            .unwrap();
        pending.store(1, Ordering::Relaxed);
        let append = tokio::spawn({
            let (records, copy) = (records.clone(), copy.clone());
            async move { records.append_copy(id, &copy).await }
        });
        answer.send(()).unwrap();
        clear.await.unwrap();
        append.await.unwrap().unwrap();
        assert!(records.put_off(id).contains(&copy));
    }
}
