//! How fast a video is played.

use std::{str::FromStr, time::Duration};

/// A speed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Speed {
    /// A second a second.
    #[default]
    RealTime,
    /// So many seconds a second.
    Times(Factor),
    /// As fast as the sink takes it.
    Max,
}

/// Seconds played a second, in thousandths, from a tenth to sixteen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Factor(u32);

/// The text is no speed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a speed is `1` (real time), another number from 0.1 to 16, or `max` (as fast as possible)")]
pub struct SpeedError;

impl FromStr for Speed {
    type Err = SpeedError;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "from 100 to 16,000"
    )]
    fn from_str(text: &str) -> Result<Self, SpeedError> {
        let text = text.to_ascii_lowercase();
        match text.as_str() {
            "max" => return Ok(Self::Max),
            "realtime" => return Ok(Self::RealTime),
            _ => {}
        }
        let number: f64 = text
            .strip_suffix('x')
            .unwrap_or(&text)
            .parse()
            .map_err(|_| SpeedError)?;
        if !(0.1..=16.0).contains(&number) {
            return Err(SpeedError);
        }
        match (number * 1000.0).round() as u32 {
            1000 => Ok(Self::RealTime),
            thousandths => Ok(Self::Times(Factor(thousandths))),
        }
    }
}

impl Speed {
    /// Time moves the position; otherwise the sink does.
    pub(crate) fn is_timed(self) -> bool {
        self != Self::Max
    }

    const fn thousandths(self) -> u128 {
        match self {
            Self::RealTime | Self::Max => 1000,
            Self::Times(Factor(thousandths)) => thousandths as u128,
        }
    }

    /// What is played in `time`.
    pub(crate) fn played_in(self, time: Duration) -> Duration {
        nanos(time.as_nanos() * self.thousandths() / 1000)
    }

    /// How long it takes to play `media`. Rounded up, so that it is played by then.
    pub(crate) fn time_for(self, media: Duration) -> Duration {
        nanos((media.as_nanos() * 1000).div_ceil(self.thousandths()))
    }
}

/// At most some centuries.
fn nanos(nanos: u128) -> Duration {
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speeds_are_read() {
        let table = [
            ("max", Speed::Max),
            ("MAX", Speed::Max),
            ("1", Speed::RealTime),
            ("1.0", Speed::RealTime),
            ("1x", Speed::RealTime),
            ("realtime", Speed::RealTime),
            ("2", Speed::Times(Factor(2000))),
            ("0.5", Speed::Times(Factor(500))),
            ("1.25x", Speed::Times(Factor(1250))),
            ("16", Speed::Times(Factor(16_000))),
            ("0.1", Speed::Times(Factor(100))),
        ];
        for (text, speed) in table {
            assert_eq!(text.parse(), Ok(speed), "{text}");
        }
        for bad in ["", "0", "fast", "-1", "x", "nan", "inf", "16.1", "0.09", "1e9"] {
            assert_eq!(bad.parse::<Speed>(), Err(SpeedError), "{bad}");
        }
    }

    #[test]
    fn what_takes_so_long_is_played_by_then() {
        for text in ["0.1", "0.3", "1", "1.7", "3", "16"] {
            let speed: Speed = text.parse().unwrap();
            for media in [0, 1, 2, 7, 1_000_000_007, 365 * 24 * 3600 * 1_000_000_000] {
                let media = Duration::from_nanos(media);
                assert!(speed.played_in(speed.time_for(media)) >= media, "{text} {media:?}");
            }
        }
    }
}
