//! Times and sizes as people read them.

use jiff::{SignedDuration, Timestamp};

/// Time since a moment, in its two largest units: `45s`, `3m12s`, `2h5m`, `3d4h`. A moment that the clock of this
/// machine takes for the future counts as now.
pub fn age(since: Timestamp, now: Timestamp) -> String {
    let seconds = now.duration_since(since).max(SignedDuration::ZERO).as_secs();
    let two = |large: i64, large_unit: &str, small: i64, small_unit: &str| match small {
        0 => format!("{large}{large_unit}"),
        small => format!("{large}{large_unit}{small}{small_unit}"),
    };
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => two(seconds / 60, "m", seconds % 60, "s"),
        3_600..86_400 => two(seconds / 3_600, "h", seconds % 3_600 / 60, "m"),
        _ => two(seconds / 86_400, "d", seconds % 86_400 / 3_600, "h"),
    }
}

/// A moment and how long ago it was: `2026-01-01T00:00:00Z (3m12s ago)`.
pub fn moment(at: Timestamp, now: Timestamp) -> String {
    format!("{at:.0} ({} ago)", age(at, now))
}

/// Bytes in units of 1024.
pub fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut amount = bytes as f64 / 1024.0;
    let mut unit = 0;
    while amount >= 1024.0 && unit + 1 < UNITS.len() {
        amount /= 1024.0;
        unit += 1;
    }
    format!("{amount:.1} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_have_two_units_and_sizes_one() {
        let now: Timestamp = "2026-01-05T04:00:00Z".parse().expect("a time");
        for (since, expected) in [
            ("2026-01-05T04:00:10Z", "0s"),
            ("2026-01-05T03:59:15Z", "45s"),
            ("2026-01-05T03:56:48Z", "3m12s"),
            ("2026-01-05T03:00:00Z", "1h"),
            ("2026-01-05T01:55:00Z", "2h5m"),
            ("2026-01-02T00:00:00Z", "3d4h"),
        ] {
            assert_eq!(age(since.parse().expect("a time"), now), expected, "{since}");
        }
        assert_eq!(moment(now, now), "2026-01-05T04:00:00Z (0s ago)");
        for (size, expected) in [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (5 << 20, "5.0 MiB")] {
            assert_eq!(bytes(size), expected);
        }
        assert_eq!(bytes(u64::MAX), "16777216.0 TiB");
    }
}
