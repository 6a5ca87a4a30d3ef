//! What the parts of the uploader share.

use std::{fmt, sync::Arc};

use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use vstack_client::{MetadataClient, NodeClient};
use vstack_media::cutter::CutLimits;
use vstack_service::commit_costs::CommitCosts;
use vstack_types::{Clock, ProcessUuid};

use crate::{completer::Completer, records::Records, sessions::Sessions, spool::SpoolRoot};

/// Files looked at by ffprobe at a time; each may take up to 2 GiB of address space.
pub const PROBES_MAX: usize = 4;

/// See the module.
pub struct App {
    /// Owner of round 0 of all videos made here; new at every start.
    pub owner: ProcessUuid,
    pub metadata: MetadataClient,
    pub nodes: NodeClient,
    pub sessions: Sessions,
    pub spool: SpoolRoot,
    pub records: Records,
    pub completer: Completer,
    pub clock: Arc<dyn Clock>,
    /// Pipelines and what they leave running.
    pub tasks: TaskTracker,
    pub shutdown: CancellationToken,
    pub probes: Semaphore,
    pub cut: CutLimits,
    /// What deciding costs.
    pub costs: CommitCosts,
    /// Largest file taken, in bytes.
    pub upload_bytes_max: u64,
    /// Space left free on the spool's disk, in bytes.
    pub free_bytes_min: u64,
}

impl fmt::Debug for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("App")
            .field("owner", &self.owner)
            .finish_non_exhaustive()
    }
}

/// Shared by handlers and tasks.
pub type SharedApp = Arc<App>;
