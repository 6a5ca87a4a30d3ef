//! Shows the status block on stderr: redrawn in place on a terminal, once at the end elsewhere.

use std::{
    io::{IsTerminal as _, Write as _},
    sync::Arc,
    time::Duration,
};

use tokio::{sync::watch, task::JoinHandle};

use crate::{Snapshot, status_block};

/// Between two redraws: quick enough for the eye, rare enough for a slow terminal.
const REDRAW_INTERVAL: Duration = Duration::from_millis(500);

/// A display that runs until it is finished.
#[derive(Debug)]
pub(crate) struct Display {
    snapshots: watch::Receiver<Arc<Snapshot>>,
    redrawing: Option<JoinHandle<usize>>,
}

impl Display {
    pub(crate) fn start(snapshots: watch::Receiver<Arc<Snapshot>>) -> Self {
        let redrawing = std::io::stderr()
            .is_terminal()
            .then(|| tokio::spawn(redraw(snapshots.clone())));
        Self { snapshots, redrawing }
    }

    /// Shows how it ended; the sender of the snapshots must be gone.
    pub(crate) async fn finish(self) {
        let lines = match self.redrawing {
            Some(task) => task.await.unwrap_or(0),
            None => 0,
        };
        let block = status_block(&self.snapshots.borrow().status);
        show(&block, lines);
    }
}

/// Redraws until nobody sends any more; gives how many lines stand on the screen.
async fn redraw(mut snapshots: watch::Receiver<Arc<Snapshot>>) -> usize {
    let mut lines = 0;
    while snapshots.changed().await.is_ok() {
        let block = status_block(&snapshots.borrow_and_update().status);
        show(&block, lines);
        lines = block.lines().count();
        tokio::time::sleep(REDRAW_INTERVAL).await;
    }
    lines
}

/// Writes `block` over the `lines` lines above the cursor.
fn show(block: &str, lines: usize) {
    let mut stderr = std::io::stderr().lock();
    let up = if lines > 0 {
        format!("\x1b[{lines}A\x1b[J")
    } else {
        String::new()
    };
    // A closed stderr is no reason to stop playing.
    let _closed = stderr.write_all(format!("{up}{block}").as_bytes());
    let _closed = stderr.flush();
}
