//! The life of one process: when it is over, nothing it still does reaches anybody, nor its disk.

use tokio_util::sync::CancellationToken;

/// See the module. Clones are the same life.
#[derive(Debug, Clone, Default)]
pub(crate) struct Life {
    over: CancellationToken,
}

impl Life {
    /// Ends it, here and now.
    pub(crate) fn end(&self) {
        self.over.cancel();
    }

    pub(crate) fn is_over(&self) -> bool {
        self.over.is_cancelled()
    }

    /// Returns when it is over.
    pub(crate) async fn over(&self) {
        self.over.cancelled().await;
    }
}
