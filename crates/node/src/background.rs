//! Where a node copies and codes chunks for repairs: beside what people wait for, and behind it.
//!
//! A thread of a lower priority does it. Receiving and hashing a chunk takes milliseconds of a processor, and whoever
//! reads meanwhile on a busy machine would wait for it, once in each of the node's threads.

use std::future::Future;

use tokio::runtime::{Builder, Runtime};
use tokio_util::task::AbortOnDropHandle;
use vstack_service::ApiError;
use vstack_types::ambient;

/// As `nice` counts: with 10, a thread gets about a tenth of what another gets of a processor that both want.
const NICE: i32 = 10;

/// Does work behind everything else.
#[derive(Debug)]
pub(crate) struct Background {
    /// None in a simulation, where one thread does everything, and where there is no thread to be had.
    runtime: Option<Runtime>,
}

impl Background {
    /// With a thread of its own, and others for what waits for a disk.
    pub(crate) fn new() -> Self {
        if ambient::is_simulated() {
            return Self { runtime: None };
        }
        let built = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("vstack-repair")
            .enable_all()
            .on_thread_start(|| {
                // On Linux this is of the calling thread alone.
                if let Err(error) = rustix::process::nice(NICE) {
                    tracing::debug!(%error, "repairs are done at the priority of everything else");
                }
            })
            .build();
        if let Err(error) = &built {
            tracing::warn!(%error, "no thread for repairs: they are done where everything else is");
        }
        Self { runtime: built.ok() }
    }

    /// Does `work` there, for as long as somebody waits for it.
    ///
    /// # Errors
    /// Those of the work; and when the node ends before it is done.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, ApiError>> + Send + 'static,
    ) -> Result<T, ApiError> {
        match &self.runtime {
            Some(runtime) => AbortOnDropHandle::new(runtime.spawn(work))
                .await
                .map_err(ApiError::internal)?,
            None => work.await,
        }
    }
}

impl Drop for Background {
    /// Without waiting for what is under way: nothing of it was promised to anybody.
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
