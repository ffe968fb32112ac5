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

/// Parses the reference of an image, such as `registry:5000/flinkha/flinkha:0.1.0` or one with a digest.
///
/// # Errors
/// When it has other characters.
pub fn image(text: &str) -> Result<String, String> {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || ".-_/:@".contains(c);
    if !text.is_empty()
        && text.len() <= 512
        && text.chars().all(is_allowed)
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
    {
        return Ok(text.to_owned());
    }
    Err("an image is written like registry.example.org/flinkha/flinkha:0.1.0".to_owned())
}

/// Flink's requests that end a job although they are GET (`YarnCancelJobTerminationHeaders`,
/// `YarnStopJobTerminationHeaders` of Flink 1.20 to 2.3).
const ENDS_A_JOB: [&str; 2] = ["yarn-cancel", "yarn-stop"];

/// Parses a path of Flink's REST API.
///
/// # Errors
/// When it is none, and when reading it would end a job.
pub fn rest_path(text: &str) -> Result<String, String> {
    if !text.starts_with('/') || text.chars().any(|c| !c.is_ascii_graphic()) || text.contains('#') {
        return Err("a path begins with / and has no spaces, such as /jobs/overview".to_owned());
    }
    let path = text.split('?').next().unwrap_or_default();
    let decoded = percent_encoding::percent_decode_str(path).decode_utf8_lossy().to_lowercase();
    if decoded.split('/').any(|part| ENDS_A_JOB.contains(&part)) {
        return Err("this GET ends a job; use kubectl flinkha suspend, or Flink's own client".to_owned());
    }
    Ok(text.to_owned())
}

/// Parses the method of a request.
///
/// # Errors
/// When it is not GET.
pub fn get_only(text: &str) -> Result<String, String> {
    match text {
        "GET" => Ok(text.to_owned()),
        _ => {
            Err("only GET is sent; use Flink's own client through kubectl port-forward to change something".to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_of_the_rest_api_changes_nothing() {
        for path in ["/jobs/overview", "/jobs/1/metrics?get=a,b", "/"] {
            assert_eq!(rest_path(path).as_deref(), Ok(path));
        }
        for path in ["", "jobs", "/a b", "/a\r\nb", "/a#b", "/jobs/1/yarn-cancel", "/jobs/1/Yarn%2dstop?x"] {
            assert!(rest_path(path).is_err(), "{path:?}");
        }
        assert!(get_only("GET").is_ok() && get_only("POST").is_err());
        assert!(image("r:5000/a/b@sha256:0a").is_ok() && image("a\"b").is_err() && image("-a").is_err());
    }

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
