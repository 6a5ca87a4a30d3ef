//! Waiting until what was asked for is done. It is done in the background: who stops waiting stops nothing else.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use vstack_client::ClientError;

/// Between two looks while it is waited.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Between two lines about what is left to be done.
pub const SAY_EVERY: Duration = Duration::from_secs(3);

/// The first census that is seen was made before, and the second may have begun before.
pub const CENSUSES_BEFORE: u32 = 2;

/// What is known when a command ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is as was asked for.
    Finished,
    /// Waiting was stopped; what was asked for goes on.
    Stopped,
    /// It was not to be waited for.
    NotAwaited,
}

/// Looks until it is done. A service that restarts meanwhile is waited for.
pub async fn until(
    stop: &CancellationToken,
    mut done: impl AsyncFnMut() -> anyhow::Result<bool>,
) -> anyhow::Result<Outcome> {
    loop {
        let looked = tokio::select! {
            looked = done() => looked,
            () = stop.cancelled() => return Ok(Outcome::Stopped),
        };
        match looked {
            Ok(true) => return Ok(Outcome::Finished),
            Ok(false) => {}
            Err(error) => match error.downcast_ref::<ClientError>() {
                Some(passing) if passing.is_transient() => {}
                _ => return Err(error),
            },
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(Outcome::Stopped),
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}
