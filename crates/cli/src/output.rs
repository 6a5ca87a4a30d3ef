//! How figures and tables are written for people.

use std::{fmt, io::Write as _};

use comfy_table::{Table, presets};

/// Exit code of a program whose reader went away, as if by SIGPIPE.
const BROKEN_PIPE: i32 = 141;

/// A line of data, on stdout.
macro_rules! out {
    ($($arg:tt)*) => { $crate::output::print(format_args!($($arg)*)) };
}

/// A line for whoever watches, on stderr.
macro_rules! say {
    ($($arg:tt)*) => { $crate::output::tell(format_args!($($arg)*)) };
}

pub(crate) use {out, say};

/// Ends the program when the line cannot be written: quietly when nobody reads any more (`vstack ls | head -1`).
pub fn print(line: fmt::Arguments<'_>) {
    let Err(error) = writeln!(std::io::stdout().lock(), "{line}") else {
        return;
    };
    if error.kind() == std::io::ErrorKind::BrokenPipe {
        std::process::exit(BROKEN_PIPE);
    }
    tell(format_args!("error: cannot write to standard output: {error}"));
    std::process::exit(1);
}

/// A supervisor goes on when its terminal is gone.
pub fn tell(line: fmt::Arguments<'_>) {
    let _nobody_reads = writeln!(std::io::stderr().lock(), "{line}");
}

/// `12.3 MB`: powers of 1000, three figures.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["B", "kB", "MB", "GB", "TB", "PB"];
    #[expect(clippy::cast_precision_loss, reason = "three figures are shown")]
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 999.5 && unit < UNITS.len() - 1 {
        value /= 1000.0;
        unit += 1;
    }
    if unit == 0 {
        format!("{count} B")
    } else {
        format!("{value:.1} {}", UNITS[unit])
    }
}

/// `1:02:03` or `2:03`.
pub fn duration(seconds: f64) -> String {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "negative and NaN become 0"
    )]
    let whole = seconds.max(0.0).round() as u64;
    let (hours, minutes, seconds) = (whole / 3600, whole / 60 % 60, whole % 60);
    if hours > 0 {
        format!("{hours}:{minutes:02}:{seconds:02}")
    } else {
        format!("{minutes}:{seconds:02}")
    }
}

/// Text from strangers for a terminal: without control characters and invisible direction marks.
pub fn plain(text: &str) -> String {
    let harmless = |c: char| {
        !c.is_control() && !matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().map(|c| if harmless(c) { c } else { '\u{fffd}' }).collect()
}

/// A table with a header and nothing but space between columns.
pub fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header.iter().copied());
    table
}

/// One JSON document on stdout.
pub fn json(value: &impl serde::Serialize) -> anyhow::Result<()> {
    out!("{}", serde_json::to_string_pretty(value)?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_read_well() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(1_500), "1.5 kB");
        assert_eq!(bytes(999_950), "1.0 MB");
        assert_eq!(bytes(2_097_152), "2.1 MB");
        assert_eq!(
            plain("a\u{1b}]0;x\u{7}\u{202e}\nä"),
            "a\u{fffd}]0;x\u{fffd}\u{fffd}\u{fffd}ä"
        );
        assert_eq!(duration(-1.0), "0:00");
        assert_eq!(duration(59.6), "1:00");
        assert_eq!(duration(3723.0), "1:02:03");
    }
}
