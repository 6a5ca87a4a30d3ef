//! The first call of a playback, made again while the metadata service is there and cannot answer yet: its database may
//! wait some seconds for a slow disk, or it is only just being started. An address at which there is nobody is given up
//! soon: most often it was mistyped.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};
use vstack_client::ClientError;

/// Longest that a service is asked that said something, or took the question.
const NOT_YET_MAX: Duration = Duration::from_secs(30);
/// Tries at an address at which nobody was ever heard begin for so long.
const NOBODY_MAX: Duration = Duration::from_secs(3);
/// Before the second try; doubles with every further one.
const PAUSE_FIRST: Duration = Duration::from_millis(250);
/// Longest such pause: a service that is back is noticed within it.
const PAUSE_MAX: Duration = Duration::from_secs(4);

/// Asks until there is an answer that another try would not change, or until it took too long: then that is the last
/// error. `not_yet` hears of the first one after which it is asked again.
pub(crate) async fn asked<T, F>(
    mut ask: impl FnMut() -> F,
    not_yet: impl FnOnce(&ClientError),
) -> Result<T, ClientError>
where
    F: Future<Output = Result<T, ClientError>>,
{
    let began = Instant::now();
    let mut error = match ask().await {
        Err(error) if error.is_transient() => error,
        answered => return answered,
    };
    let (mut limit, mut pause, mut not_yet) = (NOBODY_MAX, PAUSE_FIRST, Some(not_yet));
    loop {
        if !matches!(error, ClientError::Unreachable { .. }) {
            limit = NOT_YET_MAX;
        }
        if began.elapsed() + pause >= limit {
            return Err(error);
        }
        if let Some(not_yet) = not_yet.take() {
            not_yet(&error);
        }
        sleep(pause).await;
        pause = (2 * pause).min(PAUSE_MAX);
        error = match timeout_at(began + NOT_YET_MAX, ask()).await {
            Err(_) => return Err(error),
            Ok(Err(newer)) if newer.is_transient() => newer,
            Ok(answered) => return answered,
        };
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use vstack_api::{ErrorBody, ErrorCode};

    use super::*;

    fn refused(code: ErrorCode) -> ClientError {
        ClientError::Refused {
            status: code.status(),
            body: ErrorBody {
                detail: String::new(),
                code,
            },
        }
    }

    fn busy() -> ClientError {
        refused(ErrorCode::Unavailable)
    }

    fn silent() -> ClientError {
        ClientError::Timeout { url: String::new() }
    }

    fn nobody() -> ClientError {
        ClientError::Unreachable {
            url: String::new(),
            reason: String::new(),
        }
    }

    struct Asked {
        answer: Result<(), ClientError>,
        tries: u32,
        told: u32,
        took: Duration,
    }

    /// What becomes of asking who gives this answer to each try, the first is 1, after so long.
    async fn asking(takes: Duration, answer: impl Fn(u32) -> Result<(), ClientError>) -> Asked {
        let (tries, told) = (Cell::new(0), Cell::new(0));
        let began = Instant::now();
        let ask = || {
            tries.set(tries.get() + 1);
            let answer = answer(tries.get());
            async move {
                if !takes.is_zero() {
                    sleep(takes).await;
                }
                answer
            }
        };
        let answer = asked(ask, |_| told.set(told.get() + 1)).await;
        Asked {
            answer,
            tries: tries.get(),
            told: told.get(),
            took: began.elapsed(),
        }
    }

    const AT_ONCE: Duration = Duration::ZERO;

    #[tokio::test(start_paused = true)]
    async fn who_is_busy_is_asked_again_until_it_answers() {
        for error in [busy, silent, nobody] {
            let asked = asking(AT_ONCE, |tries| if tries < 3 { Err(error()) } else { Ok(()) }).await;
            assert!(asked.answer.is_ok());
            assert_eq!((asked.tries, asked.told), (3, 1));
        }
        let at_once = asking(AT_ONCE, |_| Ok(())).await;
        assert!(at_once.answer.is_ok());
        assert_eq!((at_once.tries, at_once.told), (1, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn who_stays_busy_or_silent_is_given_up_after_half_a_minute() {
        let stays_busy = asking(AT_ONCE, |_| Err(busy())).await;
        assert_eq!(stays_busy.answer.unwrap_err().status(), Some(503));
        let nearly = Duration::from_secs(25)..=NOT_YET_MAX;
        assert!(nearly.contains(&stays_busy.took), "{:?}", stays_busy.took);
        assert_eq!(stays_busy.told, 1);
        assert!((8..20).contains(&stays_busy.tries), "{} tries", stays_busy.tries);
        let stays_silent = asking(Duration::from_secs(10), |_| Err(silent())).await;
        assert!(matches!(stays_silent.answer, Err(ClientError::Timeout { .. })));
        // Timers have a resolution of a millisecond.
        assert_eq!(
            (stays_silent.took.as_secs(), stays_silent.tries),
            (NOT_YET_MAX.as_secs(), 3)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_with_nobody_is_given_up_soon() {
        // Refused at once, and where not even that comes back.
        for (takes, longest) in [(AT_ONCE, 3), (Duration::from_secs(2), 5)] {
            let asked = asking(takes, |_| Err(nobody())).await;
            assert!(matches!(asked.answer, Err(ClientError::Unreachable { .. })));
            assert!(asked.tries > 1 && asked.told == 1);
            assert!(asked.took <= Duration::from_secs(longest), "{:?}", asked.took);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_was_heard_once_is_waited_for_while_it_is_started_again() {
        let asked = asking(AT_ONCE, |tries| match tries {
            1 => Err(busy()),
            2..=7 => Err(nobody()),
            _ => Ok(()),
        })
        .await;
        assert!(asked.answer.is_ok());
        assert!(asked.took > NOBODY_MAX && asked.told == 1, "{:?}", asked.took);
    }

    #[tokio::test(start_paused = true)]
    async fn what_another_try_would_not_change_is_said_at_once() {
        for code in [ErrorCode::NotFound, ErrorCode::Internal] {
            let asked = asking(AT_ONCE, |_| Err(refused(code))).await;
            assert_eq!(asked.answer.unwrap_err().code(), Some(code));
            assert_eq!((asked.tries, asked.told, asked.took), (1, 0, AT_ONCE));
        }
    }
}
