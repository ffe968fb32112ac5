//! Parses words of the command line that become part of a request.

use std::time::Duration;

/// Parses a name of an object: `a-b.c`, at most 253 characters (DNS subdomain, RFC 1123).
///
/// # Errors
/// When it is not one.
pub fn resource_name(text: &str) -> Result<String, String> {
    let is_allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.".contains(c);
    let ends = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    if text.len() <= 253 && text.chars().all(is_allowed) && text.starts_with(ends) && text.ends_with(ends) {
        return Ok(text.to_owned());
    }
    Err("a name has at most 253 characters of a-z, 0-9, '-' and '.', and begins and ends with a letter or a digit"
        .to_owned())
}

/// Parses the name of a namespace: at most 63 characters without a dot (DNS label, RFC 1123).
///
/// # Errors
/// When it is not one.
pub fn namespace(text: &str) -> Result<String, String> {
    let name = resource_name(text).ok().filter(|name| name.len() <= 63 && !name.contains('.'));
    name.ok_or_else(|| {
        "a namespace has at most 63 characters of a-z, 0-9 and '-', and begins and ends with a letter or a digit"
            .to_owned()
    })
}

/// Parses a time such as `90s` or `5m`.
///
/// # Errors
/// When it is none.
pub fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|_| "a time is written like 90s, 5m or 1h".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_lead_a_request_elsewhere() {
        for name in ["", "a/b", "../x", "a?b", "a%2fb", "A", "-a", "a.", "a b", "\u{1b}[2J"] {
            assert!(resource_name(name).is_err() && namespace(name).is_err(), "{name:?}");
        }
        assert!(resource_name("a-1.b").is_ok() && namespace("a-1").is_ok() && namespace("a.b").is_err());
        assert!(resource_name(&"a".repeat(254)).is_err() && namespace(&"a".repeat(64)).is_err());
        assert!(duration("90s").is_ok() && duration("soon").is_err());
    }
}
