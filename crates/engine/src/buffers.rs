//! Memory for items on their way to the disk: a bounded number of buffers, used again and again.
//!
//! A fresh buffer costs a page fault for every 4 KiB, about as much as hashing what comes into it. A buffer is in use
//! from before its item arrives until the item is written or given up, whoever holds it meanwhile; so the memory of all
//! items that are under way never exceeds the pool's limit. Buffers that were not needed for a while are given back to
//! the system by [`BufferPool::trim`], which somebody calls now and then: the pool knows no time.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use vstack_types::planted;

use crate::aligned::Aligned;

#[derive(Debug, Default)]
struct Idle {
    buffers: Vec<Aligned>,
    /// Fewest idle buffers since the last trim: so many were never needed.
    fewest: usize,
    /// Buffers there are, idle or in use.
    allocated: usize,
}

#[derive(Debug)]
struct Shared {
    buffer_bytes: usize,
    count_max: usize,
    room: Arc<Semaphore>,
    idle: Mutex<Idle>,
}

impl Shared {
    fn idle(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The pool. Clones are the same pool.
#[derive(Debug, Clone)]
pub struct BufferPool(Arc<Shared>);

impl BufferPool {
    /// At most `count` buffers of `buffer_bytes` each, made when they are needed.
    pub fn new(buffer_bytes: usize, count: usize) -> Self {
        Self(Arc::new(Shared {
            buffer_bytes,
            count_max: count,
            room: Arc::new(Semaphore::new(count)),
            idle: Mutex::default(),
        }))
    }

    /// Bytes that fit one buffer.
    pub fn buffer_bytes(&self) -> usize {
        self.0.buffer_bytes
    }

    /// Bytes of all buffers there may be.
    pub fn bytes_max(&self) -> usize {
        self.0.buffer_bytes * self.0.count_max
    }

    /// Bytes of the buffers there are, idle or in use. The system gives memory only to what was written to.
    pub fn allocated_bytes(&self) -> usize {
        self.0.idle().allocated * self.0.buffer_bytes
    }

    /// Bytes of the buffers in use.
    pub fn used_bytes(&self) -> usize {
        let idle = self.0.idle();
        (idle.allocated - idle.buffers.len()) * self.0.buffer_bytes
    }

    /// Waits for a buffer; those who wait are served in order.
    pub async fn take(&self) -> Buffer {
        // Never closed.
        let room = Arc::clone(&self.0.room).acquire_owned().await.ok();
        self.buffer(room)
    }

    /// A buffer, when there is one at once.
    pub fn try_take(&self) -> Option<Buffer> {
        let room = Arc::clone(&self.0.room).try_acquire_owned().ok()?;
        Some(self.buffer(Some(room)))
    }

    fn buffer(&self, room: Option<OwnedSemaphorePermit>) -> Buffer {
        let mut idle = self.0.idle();
        let memory = match idle.buffers.pop() {
            Some(memory) => {
                idle.fewest = idle.fewest.min(idle.buffers.len());
                memory
            }
            None => {
                idle.fewest = 0;
                idle.allocated += 1;
                Aligned::zeroed(self.0.buffer_bytes)
            }
        };
        drop(idle);
        Buffer {
            memory,
            filled: 0,
            pool: Arc::clone(&self.0),
            _room: room,
        }
    }

    /// Gives back to the system the buffers that were idle ever since the last call.
    pub fn trim(&self) {
        let mut idle = self.0.idle();
        let unneeded = idle.fewest.min(idle.buffers.len());
        // The least recently used are at the bottom.
        let gone: Vec<_> = idle.buffers.drain(..unneeded).collect();
        idle.allocated -= gone.len();
        idle.fewest = idle.buffers.len();
        drop(idle);
    }
}

/// A buffer in use: what was filled of it, and room.
#[derive(Debug)]
pub struct Buffer {
    memory: Aligned,
    filled: usize,
    pool: Arc<Shared>,
    /// Free when the buffer is back: it is dropped after [`Drop::drop`].
    _room: Option<OwnedSemaphorePermit>,
}

/// More bytes than there is room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{len} bytes do not fit the {room} that are left of the buffer")]
pub struct Overflow {
    /// Bytes to be added.
    pub len: usize,
    /// Bytes there is room for.
    pub room: usize,
}

impl Buffer {
    /// What it holds.
    pub fn bytes(&self) -> &[u8] {
        &self.memory.bytes()[..self.filled]
    }

    /// Bytes that fit it in all.
    pub const fn capacity(&self) -> usize {
        self.memory.len()
    }

    /// Makes it hold `len` bytes, whatever they are, for the caller to write over.
    ///
    /// # Errors
    /// When they do not fit; it is as it was then.
    pub fn room(&mut self, len: usize) -> Result<&mut [u8], Overflow> {
        let room = self.memory.len();
        let target = self.memory.bytes_mut().get_mut(..len);
        let target = target.ok_or(Overflow { len, room })?;
        self.filled = len;
        Ok(target)
    }

    /// Adds bytes.
    ///
    /// # Errors
    /// When they do not fit; none are added then.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), Overflow> {
        let room = self.memory.len() - self.filled;
        let target = self.memory.bytes_mut().get_mut(self.filled..self.filled + bytes.len());
        let target = target.ok_or(Overflow { len: bytes.len(), room })?;
        target.copy_from_slice(bytes);
        self.filled += bytes.len();
        Ok(())
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        self.bytes()
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let memory = std::mem::take(&mut self.memory);
        if planted!("memory of what arrived is not given back") {
            return;
        }
        self.pool.idle().buffers.push(memory);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::{task::JoinSet, time::timeout};

    use super::*;

    const LEN: usize = 8192;

    #[tokio::test]
    async fn there_are_never_more_buffers_than_the_limit() {
        let pool = BufferPool::new(LEN, 3);
        let mut tasks = JoinSet::new();
        for turn in 0..100_u8 {
            let pool = pool.clone();
            tasks.spawn(async move {
                let mut buffer = pool.take().await;
                buffer.push(&[turn; 100]).unwrap();
                assert!(pool.allocated_bytes() <= pool.bytes_max(), "{}", pool.allocated_bytes());
                tokio::task::yield_now().await;
                assert_eq!(buffer.bytes(), [turn; 100], "nobody else writes to it");
            });
        }
        while let Some(done) = tasks.join_next().await {
            done.unwrap();
        }
        assert_eq!(
            (pool.bytes_max(), pool.allocated_bytes(), pool.used_bytes()),
            (3 * LEN, 3 * LEN, 0)
        );
    }

    #[tokio::test]
    async fn who_holds_an_item_holds_its_buffer() {
        let pool = BufferPool::new(LEN, 1);
        let mut buffer = pool.take().await;
        buffer.push(b"bytes").unwrap();
        let bytes = bytes::Bytes::from_owner(buffer);
        let part = bytes.slice(1..);
        drop(bytes);
        assert_eq!(pool.used_bytes(), LEN);
        assert!(timeout(Duration::from_millis(20), pool.take()).await.is_err());
        assert!(pool.try_take().is_none());
        drop(part);
        assert_eq!(pool.used_bytes(), 0);
        assert!(pool.try_take().is_some_and(|buffer| buffer.bytes().is_empty()));
        assert!(
            timeout(Duration::from_secs(60), pool.take())
                .await
                .unwrap()
                .bytes()
                .is_empty()
        );
    }

    #[tokio::test]
    async fn what_was_not_needed_since_the_last_trim_is_given_back() {
        let pool = BufferPool::new(LEN, 8);
        let all = [
            pool.take().await,
            pool.take().await,
            pool.take().await,
            pool.take().await,
        ];
        drop(all);
        pool.trim();
        assert_eq!(pool.allocated_bytes(), 4 * LEN, "all were needed");
        drop([pool.take().await, pool.take().await]);
        pool.trim();
        assert_eq!(pool.allocated_bytes(), 2 * LEN, "two were");
        let held = pool.take().await;
        pool.trim();
        pool.trim();
        assert_eq!((pool.allocated_bytes(), pool.used_bytes()), (LEN, LEN), "one is");
        drop(held);
        pool.trim();
        pool.trim();
        assert_eq!(pool.allocated_bytes(), 0);
    }

    #[tokio::test]
    async fn a_buffer_takes_no_more_than_it_has_room_for() {
        let pool = BufferPool::new(LEN, 1);
        let mut buffer = pool.take().await;
        buffer.push(&[1; LEN - 1]).unwrap();
        assert_eq!(buffer.push(&[2; 2]), Err(Overflow { len: 2, room: 1 }));
        buffer.push(&[2]).unwrap();
        assert_eq!(buffer.push(&[]), Ok(()));
        assert_eq!((buffer.bytes().len(), buffer.bytes()[LEN - 1]), (LEN, 2));
    }
}
