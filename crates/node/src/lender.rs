//! One buffer that goes to a connection and comes back.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;
use vstack_engine::Buffer;

/// Lends the one buffer of an answer to the connection, and gets it back when its bytes were written or given up.
#[derive(Default)]
pub(crate) struct Lender {
    back: Mutex<Option<Buffer>>,
    came_back: Notify,
}

impl Lender {
    pub(crate) fn lend(self: &Arc<Self>, buffer: Buffer) -> Lent {
        Lent {
            buffer: Some(buffer),
            lender: Arc::clone(self),
        }
    }

    /// The buffer, when it is back.
    pub(crate) async fn returned(&self) -> Buffer {
        loop {
            // Somebody else's panic leaves the buffer as whole as it was.
            let back = self.back.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(buffer) = back {
                return buffer;
            }
            self.came_back.notified().await;
        }
    }
}

/// A buffer with the connection.
pub(crate) struct Lent {
    buffer: Option<Buffer>,
    lender: Arc<Lender>,
}

impl Lent {
    pub(crate) fn bytes(&self) -> &[u8] {
        self.buffer.as_ref().map_or(&[], Buffer::bytes)
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        *self.lender.back.lock().unwrap_or_else(PoisonError::into_inner) = self.buffer.take();
        self.lender.came_back.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;
    use vstack_engine::BufferPool;

    use super::*;

    #[tokio::test]
    async fn a_buffer_comes_back_when_nobody_has_its_bytes() {
        let pool = BufferPool::new(8, 1);
        let mut buffer = pool.take().await;
        buffer.push(b"bytes").unwrap();
        let lender = Arc::new(Lender::default());
        let lent = lender.lend(buffer);
        assert_eq!(lent.bytes(), b"bytes");
        assert!(timeout(Duration::from_millis(20), lender.returned()).await.is_err());
        drop(lent);
        let again = timeout(Duration::from_secs(60), lender.returned()).await.unwrap();
        drop(lender.lend(again));
        assert_eq!(pool.used_bytes(), 8);
        drop(lender);
        assert_eq!(pool.used_bytes(), 0, "it goes with who lends it");
    }
}
