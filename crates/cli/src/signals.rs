//! How processes are told to stop, and that a supervised one never outlives its supervisor.

use anyhow::Context as _;
use rustix::process::{Signal, getppid, set_parent_process_death_signal};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Set by the supervisor for its children: its process id.
pub const SUPERVISOR_PID: &str = "VSTACK_SUPERVISOR_PID";

/// When started by a supervisor, have the kernel end this process with it, even if it is killed.
pub fn die_with_supervisor() -> anyhow::Result<()> {
    let Ok(supervisor) = std::env::var(SUPERVISOR_PID) else {
        return Ok(());
    };
    set_parent_process_death_signal(Some(Signal::TERM)).context("cannot tie this process to its supervisor")?;
    // The supervisor may have died before the line above.
    let parent = getppid().map(|pid| pid.as_raw_nonzero().to_string());
    anyhow::ensure!(parent.as_deref() == Some(supervisor.as_str()), "the supervisor is gone");
    Ok(())
}

/// Cancels `stop` on SIGTERM, SIGHUP and Ctrl-C.
pub fn cancel_on_stop(stop: &CancellationToken) -> anyhow::Result<()> {
    for kind in [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()] {
        let mut signals = signal(kind).context("cannot listen for signals")?;
        let stop = stop.clone();
        tokio::spawn(async move {
            signals.recv().await;
            stop.cancel();
            // A second one means it: do not wait for anything.
            signals.recv().await;
            std::process::exit(130);
        });
    }
    Ok(())
}
