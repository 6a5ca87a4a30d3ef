//! Sealing: from here on this disk votes no more, for good, so that it can leave. It goes on learning and serving.

use std::sync::atomic::Ordering;

use super::Store;
use crate::{
    disk::Disk,
    identity::Identity,
    op::{Now, WriteError},
};

impl<D: Disk> Store<D> {
    /// Durable when it returns, and so is every vote before it. When that fails it is unknown whether the disk is
    /// sealed, so nothing is written until the store is opened again and has read it.
    pub(super) fn seal_disk(&mut self, now: Now, position: usize) -> Result<(), WriteError> {
        if self.identity.sealed {
            return Ok(());
        }
        self.seal(now)?;
        self.durable_ops = position;
        let sealed = Identity {
            sealed: true,
            ..self.identity.clone()
        };
        if let Err(error) = sealed.save(&self.shared.disk) {
            self.failed = true;
            let error = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
            return Err(WriteError::Failed { error });
        }
        self.identity = sealed;
        self.shared.sealed.store(true, Ordering::Release);
        Ok(())
    }
}
